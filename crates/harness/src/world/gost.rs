//! A host's gost and the clients of tunnels, simulated or real. A real gost gets the output of `gossd gost-config`,
//! changed only where a test needs shorter times.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::agent::RULE_FILE;
use super::{AGENTS, PLUGIN, TUNNEL, World, words};
use crate::engine::Spec;
use crate::visits::{UnixMillis, now};

/// The path of a real gost in a container.
const PROGRAM: &str = "/gost";
const CONFIG: &str = "/gost.yml";
/// The address of a real client's web target.
const TARGET: &str = "127.0.0.1:9000";
/// What a client prints once it is bound: ours, and gost's.
const BOUND: [&str; 2] = ["\"bound\"", "create tunnel on"];

impl World {
    pub(crate) async fn start_gost(&self, name: &str) -> anyhow::Result<()> {
        let mut folders =
            vec![format!("{}:/ingress:ro", self.folder.join(format!("{name}-ingress")).display())];
        let command = if let Some(program) = &self.plan.real_gost {
            let file = self.folder.join(format!("{name}-gost.yml"));
            std::fs::write(&file, self.real_config(name)?)?;
            folders.push(read_only(program, PROGRAM));
            folders.push(read_only(&file, CONFIG));
            vec![PROGRAM.into(), "-C".into(), CONFIG.into()]
        } else {
            self.simulated()
        };
        let shares = Some(self.container(name, "pause"));
        let spec = Spec { image: "gossd-harness", command, shares, folders, ..Spec::default() };
        self.engine.run(&self.container(name, "gost"), &spec).await
    }

    fn simulated(&self) -> Vec<String> {
        let plan = &self.plan;
        let agent = if plan.second_address { AGENTS } else { PLUGIN };
        let mut command = words(&format!(
            "/fakegost gost --plugin {} --agent {agent} --ttl {}",
            plan.plugin,
            plan.ttl.as_secs_f64()
        ));
        if let Some(token) = plan.token() {
            command.extend(["--token".into(), token.into()]);
        }
        if plan.rule_file {
            command.extend(["--ingress-file".into(), RULE_FILE.into()]);
        }
        if plan.unnamed_entrypoint {
            command.extend(["--entrypoint".into(), String::new(), "--entrypoints".into(), ":8420".into()]);
        }
        if plan.goodbye {
            command.push("--goodbye".into());
        }
        command
    }

    /// The output of `gossd gost-config`, with shorter times.
    fn real_config(&self, name: &str) -> anyhow::Result<String> {
        let plan = &self.plan;
        let second = self.next_ip(*self.hosts.get(name).context("no such host")?);
        let mut command = Command::new(gossd()?);
        command.args(["gost-config", "--type", &plan.plugin.to_string(), "--plugin", PLUGIN]);
        if plan.token().is_some() {
            command.arg("--token-file").arg(self.keys_of("any").join("token"));
        }
        if plan.second_address {
            command.args(["--second", &second]);
        }
        if plan.rule_file {
            command.args(["--ingress", "file", "--ingress-file", RULE_FILE]);
        }
        let ran = command.output().context("gossd gost-config")?;
        ensure!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
        let mut text = String::from_utf8(ran.stdout)?;
        replace(
            &mut text,
            "      sd: sd-0\n",
            &format!("      sd: sd-0\n      tunnel.ttl: {}s\n", plan.ttl.as_secs()),
        )?;
        if plan.unnamed_entrypoint {
            let listed = "      entrypoints:\n      - addr: \":8420\"\n        ingress: ingress-0\n";
            replace(&mut text, "      entrypoint: \":8420\"\n", listed)?;
        }
        if plan.second_address {
            // The hosts of this world have these lines.
            for told in [format!("#   127.0.0.1 {AGENTS}"), format!("#   {second} {AGENTS}")] {
                let told = told.trim_end_matches(":8000");
                ensure!(text.contains(told), "no {told:?} in what gossd gost-config prints:\n{text}");
            }
        }
        Ok(text)
    }

    /// Starts a client of a tunnel at a host with its web target, and waits until it is bound.
    pub(crate) async fn client(
        &mut self,
        name: &str,
        at: &str,
        tunnel: &str,
        host: &str,
    ) -> anyhow::Result<()> {
        let before = self.bound().len();
        self.start_client(name, at, tunnel, host, "tcp").await?;
        self.until("the client is bound", || self.bound().len() > before).await.map(drop)
    }

    /// Starts a client by TCP or UDP without waiting.
    pub(crate) async fn start_client(
        &self,
        name: &str,
        at: &str,
        tunnel: &str,
        host: &str,
        network: &str,
    ) -> anyhow::Result<()> {
        let container = self.container(name, "client");
        if let Some(program) = &self.plan.real_gost {
            let target = self.container(name, "target");
            let serve = words(&format!("/fakegost target --listen {TARGET} --say {name}"));
            self.run_helper(&target, "gossd-harness", serve).await?;
            let spec = Spec {
                image: "gossd-harness",
                command: vec![
                    PROGRAM.into(),
                    "-L".into(),
                    format!("r{network}://{host}:0/{TARGET}"),
                    "-F".into(),
                    format!("tunnel+tcp://{at}:8421?tunnel.id={tunnel}"),
                ],
                shares: Some(target),
                folders: vec![read_only(program, PROGRAM)],
                ..Spec::default()
            };
            self.engine.run(&container, &spec).await?;
        } else {
            let udp = if network == "udp" { "--udp" } else { "" };
            let command = words(&format!(
                "/fakegost client --server {at}:8421 --tunnel {tunnel} --host={host} --say {name} {udp}"
            ));
            self.run_helper(&container, "gossd-harness", command).await?;
        }
        let (bound, name) = (self.bound.clone(), name.to_owned());
        self.engine.follow(&container, move |line| {
            if BOUND.iter().any(|said| line.contains(said)) {
                bound.lock().expect("no panic holds it").push((now(), name.clone()));
            }
        });
        Ok(())
    }

    /// When each client was bound.
    pub(crate) fn bound(&self) -> Vec<(UnixMillis, String)> {
        self.bound.lock().expect("no panic holds it").clone()
    }

    pub(crate) async fn kill_client(&self, name: &str) -> anyhow::Result<()> {
        self.engine.kill(&self.container(name, "client")).await
    }

    /// Whether [`World::members`] works: a real gost would need a program for each member.
    pub(crate) fn has_members(&self) -> bool {
        self.plan.real_gost.is_none()
    }

    /// Visitors of a private tunnel, who name it, at these hosts' tunnel ports.
    pub(crate) async fn members(&mut self, hosts: &[&str], host: &str) -> anyhow::Result<()> {
        let ports: Vec<String> = hosts.iter().map(|host| format!("{host}:8421")).collect();
        self.visit(&ports, &format!("--host {host} --tunnel {TUNNEL}")).await
    }
}

/// Mounts a file of this machine in a container.
fn read_only(file: &Path, at: &str) -> String {
    format!("{}:{at}:ro", file.display())
}

/// Replaces a text; its absence is an error, because the test depends on it.
fn replace(text: &mut String, old: &str, new: &str) -> anyhow::Result<()> {
    ensure!(text.contains(old), "no {old:?} in what gossd gost-config prints:\n{text}");
    *text = text.replace(old, new);
    Ok(())
}

/// The `gossd` program that was built with this one.
fn gossd() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("where this program is")?.with_file_name("gossd");
    ensure!(path.exists(), "no {}: build gossd into the same folder", path.display());
    Ok(path)
}
