//! The Docker engine: the networks and containers of one run. They are removed at its end; after a failure, their logs
//! stay. Knows nothing of gossd.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, Ipam, IpamConfig,
    NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::StreamExt as _;

/// Marks everything that belongs to a run, so that nothing else is ever touched.
const LABEL: &str = "org.gossd.harness";
/// The longest that a command in a container may take.
const EXEC: Duration = Duration::from_secs(30);

/// A connection to the engine, for one run.
pub(crate) struct Engine {
    docker: Docker,
    run: String,
    /// The tag of all images.
    tag: String,
}

/// The settings of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) image: &'static str,
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<String>,
    /// A network with the container's own address and names on it,
    pub(crate) network: Option<(String, Option<String>, Vec<String>)>,
    /// or the network namespace of another container.
    pub(crate) shares: Option<String>,
    /// Mounted folders and files, as `HOST:CONTAINER`.
    pub(crate) folders: Vec<String>,
    /// `NAME:ADDRESS` lines of the container's hosts file, in order.
    pub(crate) hosts: Vec<String>,
    /// Folders in memory with their options, such as `/data` and `size=4m,mode=1777`.
    pub(crate) small: HashMap<String, String>,
    pub(crate) capabilities: Vec<String>,
    /// The user, if not the image's own.
    pub(crate) user: Option<String>,
    /// Additional groups, by number.
    pub(crate) groups: Vec<String>,
}

impl Engine {
    /// Connects to the engine that `docker` uses.
    pub(crate) async fn connect(run: &str, tag: &str) -> anyhow::Result<Self> {
        let docker = Docker::connect_with_defaults().context("no Docker engine")?;
        let docker = docker.negotiate_version().await.context("the Docker engine does not answer")?;
        Ok(Self { docker, run: run.into(), tag: tag.into() })
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.into(), self.run.clone())])
    }

    /// Creates a network with this subnet.
    pub(crate) async fn network(&self, name: &str, subnet: &str, mtu: Option<u32>) -> anyhow::Result<()> {
        let ipam = IpamConfig { subnet: Some(subnet.into()), ..IpamConfig::default() };
        let mtu = mtu.map(|mtu| ("com.docker.network.driver.mtu".to_owned(), mtu.to_string()));
        let request = NetworkCreateRequest {
            name: name.into(),
            driver: Some("bridge".into()),
            ipam: Some(Ipam { config: Some(vec![ipam]), ..Ipam::default() }),
            options: Some(HashMap::from_iter(mtu)),
            labels: Some(self.labels()),
            ..NetworkCreateRequest::default()
        };
        self.docker.create_network(request).await.with_context(|| format!("network {name}"))?;
        Ok(())
    }

    pub(crate) async fn run(&self, name: &str, spec: &Spec) -> anyhow::Result<()> {
        let endpoint = |(network, ip, aliases): &(String, Option<String>, Vec<String>)| {
            let settings = EndpointSettings {
                aliases: Some(aliases.clone()),
                ipam_config: ip
                    .clone()
                    .map(|ip| EndpointIpamConfig { ipv4_address: Some(ip), ..EndpointIpamConfig::default() }),
                ..EndpointSettings::default()
            };
            NetworkingConfig { endpoints_config: Some(HashMap::from([(network.clone(), settings)])) }
        };
        let shared = spec.shares.as_ref().map(|other| format!("container:{other}"));
        let own = spec.network.as_ref().map(|(network, ..)| network.clone());
        let body = ContainerCreateBody {
            image: Some(format!("{}:{}", spec.image, self.tag)),
            entrypoint: Some(Vec::new()),
            cmd: Some(spec.command.clone()),
            env: Some(spec.environment.clone()),
            user: spec.user.clone(),
            labels: Some(self.labels()),
            // The image's health check asks gossd, which most of these containers do not run.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
            networking_config: spec.network.as_ref().map(endpoint),
            host_config: Some(HostConfig {
                network_mode: shared.or(own),
                binds: Some(spec.folders.clone()),
                extra_hosts: Some(spec.hosts.clone()),
                tmpfs: Some(spec.small.clone()),
                cap_add: Some(spec.capabilities.clone()),
                group_add: Some(spec.groups.clone()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.docker.create_container(Some(options), body).await.with_context(|| format!("making {name}"))?;
        self.start(name).await
    }

    pub(crate) async fn start(&self, name: &str) -> anyhow::Result<()> {
        self.docker.start_container(name, None).await.with_context(|| format!("starting {name}"))
    }

    pub(crate) async fn signal(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        self.docker.kill_container(name, Some(options)).await.with_context(|| format!("{signal} to {name}"))
    }

    /// Kills a container with SIGKILL.
    pub(crate) async fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.signal(name, "SIGKILL").await?;
        self.ended(name).await
    }

    pub(crate) async fn ended(&self, name: &str) -> anyhow::Result<()> {
        for _ in 0..500 {
            let found = self.docker.inspect_container(name, None).await?;
            if found.state.and_then(|state| state.running) != Some(true) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{name} does not end")
    }

    /// Stops every process of a container, or lets them continue.
    pub(crate) async fn freeze(&self, name: &str, frozen: bool) -> anyhow::Result<()> {
        let done = if frozen {
            self.docker.pause_container(name).await
        } else {
            self.docker.unpause_container(name).await
        };
        done.with_context(|| format!("freezing {name}"))
    }

    pub(crate) async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.docker.remove_container(name, Some(options)).await.with_context(|| format!("removing {name}"))
    }

    pub(crate) async fn disconnect(&self, network: &str, container: &str) -> anyhow::Result<()> {
        let request = NetworkDisconnectRequest { container: container.into(), force: Some(false) };
        self.docker.disconnect_network(network, request).await.context("taking it off the network")
    }

    /// Connects a container to a network again, with its former address and names.
    pub(crate) async fn reconnect(
        &self,
        network: &str,
        container: &str,
        ip: &str,
        aliases: &[&str],
    ) -> anyhow::Result<()> {
        let ipam = EndpointIpamConfig { ipv4_address: Some(ip.into()), ..EndpointIpamConfig::default() };
        let endpoint_config = EndpointSettings {
            ipam_config: Some(ipam),
            aliases: Some(aliases.iter().map(|&alias| alias.into()).collect()),
            ..EndpointSettings::default()
        };
        let request =
            NetworkConnectRequest { container: container.into(), endpoint_config: Some(endpoint_config) };
        self.docker.connect_network(network, request).await.context("putting it back on the network")
    }

    /// Runs a command in a container. Returns its output; fails if the command fails.
    pub(crate) async fn execute(&self, name: &str, command: &str) -> anyhow::Result<String> {
        let (code, said) = self.exit_code(name, command).await?;
        anyhow::ensure!(code == 0, "{command} in {name} ended with {code}: {said}");
        Ok(said)
    }

    /// Runs a command in a container. Returns its exit code and output.
    pub(crate) async fn exit_code(&self, name: &str, command: &str) -> anyhow::Result<(i64, String)> {
        let cmd = command.split_whitespace().map(str::to_owned).collect();
        let options = CreateExecOptions {
            cmd: Some(cmd),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let id = self.docker.create_exec(name, options).await?.id;
        let started = self.docker.start_exec(&id, None::<StartExecOptions>).await?;
        let StartExecResults::Attached { output, .. } = started else { bail!("{command} has no output") };
        let said = tokio::time::timeout(EXEC, output.collect::<Vec<_>>()).await;
        let said = said.with_context(|| format!("{command} in {name} does not end"))?;
        let said: String = said.into_iter().filter_map(Result::ok).map(|part| part.to_string()).collect();
        // The output may end a moment before the command does.
        for _ in 0..100 {
            let found = self.docker.inspect_exec(&id).await?;
            if found.running == Some(false) {
                let code =
                    found.exit_code.with_context(|| format!("{command} in {name} has no exit code"))?;
                return Ok((code, said));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{command} in {name} does not end")
    }

    /// Passes each line that a container prints to `line`, until the container ends.
    pub(crate) fn follow(&self, name: &str, mut line: impl FnMut(&str) + Send + 'static) {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).build();
        let (docker, name) = (self.docker.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut logs = docker.logs(&name, Some(options));
            let mut rest = String::new();
            while let Some(Ok(output)) = logs.next().await {
                rest.push_str(&String::from_utf8_lossy(&output.into_bytes()));
                while let Some((first, more)) = rest.split_once('\n') {
                    line(first);
                    rest = more.to_owned();
                }
            }
        });
    }

    /// Everything that a container has logged.
    pub(crate) async fn log(&self, name: &str) -> anyhow::Result<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let parts: Vec<_> = self.docker.logs(name, Some(options)).collect().await;
        let bytes = parts.into_iter().filter_map(Result::ok).map(LogOutput::into_bytes);
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect())
    }

    pub(crate) async fn containers(&self) -> anyhow::Result<Vec<String>> {
        let mine = HashMap::from([("label", vec![format!("{LABEL}={}", self.run)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&mine).build();
        let found = self.docker.list_containers(Some(options)).await?;
        let names = found.into_iter().filter_map(|container| container.names?.into_iter().next());
        Ok(names.map(|name| name.trim_start_matches('/').to_owned()).collect())
    }

    /// Writes the logs of all containers into a folder.
    pub(crate) async fn keep_logs(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        for name in self.containers().await? {
            std::fs::write(folder.join(format!("{name}.log")), self.log(&name).await?)?;
        }
        Ok(folder.into())
    }

    pub(crate) async fn clean(&self) -> anyhow::Result<()> {
        // Containers that share a namespace are removed before the owner of the namespace.
        let mut names = self.containers().await?;
        names.sort_by_key(|name| name.ends_with("-pause") || name.ends_with("-target"));
        for name in names {
            self.remove(&name).await?;
        }
        let mine = HashMap::from([("label", vec![format!("{LABEL}={}", self.run)])]);
        let options = ListNetworksOptionsBuilder::default().filters(&mine).build();
        for network in self.docker.list_networks(Some(options)).await? {
            if let Some(name) = network.name {
                self.docker.remove_network(&name).await.with_context(|| format!("removing {name}"))?;
            }
        }
        Ok(())
    }
}
