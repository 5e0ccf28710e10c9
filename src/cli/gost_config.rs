//! `gossd gost-config`: the YAML with which a gost uses the agent beside it. Starts nothing, and reads nothing but
//! the configuration and token files.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::flags::{RunArgs, parse_entrypoint, parse_host};
use super::second;
use crate::host::AdvertisedHost;
use crate::plugin::{http, token};
use gossd_core::address::Host;

/// The flags about gost, and about the agent.
#[derive(Debug, Args)]
#[command(
    after_help = "Of a --token-file, the first token is printed: it is the one that gost sends. Keys, certificates and \
the agent's folders are not looked at."
)]
pub(super) struct GostConfigArgs {
    /// How gost calls [default: http; grpc with --token-file, because gost 3.2.6 sends a token over gRPC only, or --via
    /// unix]
    #[arg(long, env = "GOSSD_TYPE")]
    r#type: Option<PluginType>,
    /// Which of the agent's listeners gost calls: --plugin or --plugin-socket, which is for grpc only
    #[arg(long, env = "GOSSD_VIA", default_value = "tcp")]
    via: Via,
    /// How gost finds the tunnel of a host name: it asks the agent, or reads --ingress-file and asks nobody
    #[arg(long, env = "GOSSD_INGRESS", default_value = "plugin")]
    ingress: IngressBy,
    /// Where gost's tunnel clients come in
    #[arg(long, env = "GOSSD_TUNNEL_ADDR", value_name = "ADDR", default_value = ":8421", value_parser = parse_listen)]
    tunnel_addr: String,
    /// Where visitors come in, and the gosts of other hosts
    #[arg(long, env = "GOSSD_ENTRYPOINT", value_name = "ADDR", default_value = ":8420", value_parser = parse_listen)]
    entrypoint: String,
    /// IP address of a peer's host, whose agent gost calls while its own does not answer
    #[arg(long, env = "GOSSD_SECOND", value_name = "IP")]
    second: Option<IpAddr>,
    /// A name in the certificate of --tls-cert, for gost to check [default: --advertise-host]
    #[arg(long, env = "GOSSD_SERVER_NAME", value_name = "HOST", value_parser = parse_host)]
    server_name: Option<Host>,
    #[command(flatten, next_help_heading = "Flags of gossd run")]
    agent: RunArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PluginType {
    Grpc,
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Via {
    Tcp,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IngressBy {
    Plugin,
    File,
}

/// gost's `plugin.tls`; without it, no TLS.
enum Tls {
    Checked(Host),
    Unchecked,
}

/// What the operator should know of an `ingresses` entry with a file.
const FILE_NOTES: &str = "  # gossd writes this file (mode 0640, its group: gost needs it), and gost reads it every second. So visitors of this
  # host's tunnels are served while gossd is away, however long that is. What it costs: clients get no names of their own.
  # One that asks for a name is told that it has it, but only its hash host and what --ingress-rule says lead to it. A new
  # name is known after up to two seconds. Visitors have to write names in lower case and without a dot at the end.
";

/// How gost reaches the agent.
struct PluginUrls {
    r#type: &'static str,
    sd: String,
    ingress: String,
    tls: Option<Tls>,
    token: Option<Zeroizing<String>>,
    /// What the operator should know, one line each.
    notes: Vec<String>,
}

pub(super) fn gost_config(args: &GostConfigArgs) -> anyhow::Result<()> {
    let plugin = plugin(args)?;
    let text = yaml(args, &plugin, &ingress(args, &plugin)?);
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
}

/// What gost's configuration has below the names of its two plugins, for gost's Web API: of service discovery and of ingress.
#[cfg(feature = "redis")]
pub(super) fn sections(args: &GostConfigArgs) -> anyhow::Result<[serde_json::Value; 2]> {
    let plugin = plugin(args)?;
    let read = |addr: &str| serde_norway::from_str(&section(&plugin, addr));
    Ok([read(&plugin.sd)?, read(&plugin.ingress)?])
}

fn plugin(args: &GostConfigArgs) -> anyhow::Result<PluginUrls> {
    let mut plugin = match (args.via, kind(args), &args.agent.plugin_socket) {
        (Via::Tcp, PluginType::Grpc, _) => over_grpc(args)?,
        (Via::Tcp, PluginType::Http, _) => over_http(args)?,
        (Via::Unix, PluginType::Grpc, Some(path)) => over_unix(path)?,
        (Via::Unix, PluginType::Grpc, None) => return wrong("--via unix needs --plugin-socket"),
        (Via::Unix, PluginType::Http, _) => {
            return wrong("--via unix needs --type grpc: gost's HTTP plugins speak TCP only");
        }
    };
    let about_tls = match plugin.tls {
        Some(Tls::Checked(_)) => {
            Some("serverName has to be in gossd's certificate, and this host has to trust who issued that.")
        }
        Some(Tls::Unchecked) => Some(
            "gost does not check gossd's certificate: for that, add --server-name with a name that is in it.",
        ),
        None => None,
    };
    plugin.notes.extend(about_tls.map(str::to_owned));
    if let Some(path) = &args.agent.token_file {
        plugin.token = Some(token::first(path).context("--token-file")?);
        plugin.notes.push("The token is a secret: keep this file from other users.".into());
        if kind(args) == PluginType::Http {
            plugin.notes.push(
                "gost 3.2.6 and older send no token over HTTP: use a newer one, or --type grpc.".into(),
            );
        }
    }
    plugin.notes.extend(notes_on_second(args)?);
    Ok(plugin)
}

/// Over HTTP, gost does not notice that its agent was restarted, and is served again at once when it was away for longer;
/// over gRPC, it backs off for a second at least.
fn kind(args: &GostConfigArgs) -> PluginType {
    let grpc = args.via == Via::Unix || args.agent.token_file.is_some();
    args.r#type.unwrap_or(if grpc { PluginType::Grpc } else { PluginType::Http })
}

fn over_grpc(args: &GostConfigArgs) -> anyhow::Result<PluginUrls> {
    let addr = address(args)?;
    let notes = note_on_socket(args);
    Ok(PluginUrls { r#type: "grpc", sd: addr.clone(), ingress: addr, tls: tls(args), token: None, notes })
}

fn note_on_socket(args: &GostConfigArgs) -> Vec<String> {
    let offered = "gossd has a Unix socket as well: --via unix makes gost call that.".to_owned();
    args.agent.plugin_socket.is_some().then_some(offered).into_iter().collect()
}

fn over_http(args: &GostConfigArgs) -> anyhow::Result<PluginUrls> {
    let tls = tls(args);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let root = format!("{scheme}://{}", address(args)?);
    let [sd, ingress] = [http::PATH, http::INGRESS_PATH].map(|path| format!("{root}{path}"));
    Ok(PluginUrls { r#type: "http", sd, ingress, tls, token: None, notes: note_on_socket(args) })
}

fn over_unix(path: &Path) -> anyhow::Result<PluginUrls> {
    // gost need not run in this folder.
    let path = std::path::absolute(path).context("--plugin-socket")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@,=~".contains(c);
    let Some(path) = path.to_str().filter(|path| path.chars().all(is_plain)) else {
        return wrong("--plugin-socket has a character that gost would not take in a plugin's address");
    };
    let addr = format!("unix://{path}");
    Ok(PluginUrls {
        r#type: "grpc",
        sd: addr.clone(),
        ingress: addr,
        tls: None,
        token: None,
        notes: Vec::new(),
    })
}

/// Where a gost on the same host reaches the plugin, under a name if it has a second address.
fn address(args: &GostConfigArgs) -> anyhow::Result<String> {
    let Some(own) = second::own(&args.agent.plugin) else {
        return wrong("--plugin has port 0: gost has to know the real one");
    };
    Ok(match args.second {
        Some(_) => format!("{}:{}", second::NAME, own.port()),
        None => own.to_string(),
    })
}

/// What has to be so for the second address to be one.
fn notes_on_second(args: &GostConfigArgs) -> anyhow::Result<Vec<String>> {
    let Some((peer, own)) = args.second.zip(second::own(&args.agent.plugin)) else { return Ok(Vec::new()) };
    if args.via == Via::Unix {
        return wrong("--second needs --via tcp: a peer has no socket on this host");
    }
    if args.agent.token_file.is_none() && !args.agent.insecure_plugin {
        return wrong(
            "--second needs --token-file: a plugin that other hosts reach wants tokens, the same at each",
        );
    }
    let [first, second] = second::lines(own.ip(), peer);
    let there = SocketAddr::new(peer, own.port());
    let mut notes = vec![
        "This host's /etc/hosts has to have, in this order:".into(),
        format!("  {first}"),
        format!("  {second}"),
        format!(
            "The agent at {peer} has to listen at --plugin {there} besides its own, with the same --token-file."
        ),
        format!("`gossd check --second {peer}` tries both."),
    ];
    if args.agent.tls_cert.is_none() {
        notes.push(
            "Without --tls-cert, whoever is between the two hosts can read the token and the tunnels' ids."
                .into(),
        );
    }
    Ok(notes)
}

fn tls(args: &GostConfigArgs) -> Option<Tls> {
    args.agent.tls_cert.as_ref()?;
    let advertised = args.agent.advertise_host.as_ref().and_then(|advertise| match &advertise.host {
        AdvertisedHost::Host(host) => Some(host),
        AdvertisedHost::Interface(_) => None,
    });
    let name = args.server_name.as_ref().or(advertised);
    Some(name.map_or(Tls::Unchecked, |name| Tls::Checked(name.clone())))
}

/// What an entry of `ingresses` has below its name.
fn ingress(args: &GostConfigArgs, plugin: &PluginUrls) -> anyhow::Result<Zeroizing<String>> {
    if args.ingress == IngressBy::Plugin {
        return Ok(section(plugin, &plugin.ingress));
    }
    let Some(path) = &args.agent.ingress_file else { return wrong("--ingress file needs --ingress-file") };
    // gost need not run in this folder.
    let path = std::path::absolute(path).context("--ingress-file")?;
    let Some(path) = path.to_str() else { return wrong("--ingress-file is no text that YAML could have") };
    let path = quoted(path);
    Ok(Zeroizing::new(format!("{FILE_NOTES}  reload: 1s\n  file:\n    path: {path}\n")))
}

fn yaml(args: &GostConfigArgs, plugin: &PluginUrls, ingress: &str) -> Zeroizing<String> {
    let notes: String = plugin.notes.iter().flat_map(|note| ["# ", note, "\n"]).collect();
    let (tunnel_addr, entrypoint) = (quoted(&args.tunnel_addr), quoted(&args.entrypoint));
    let sd = section(plugin, &plugin.sd);
    Zeroizing::new(format!(
        "\
# For `gost -C`, beside a `gossd run` with the flags that `gossd gost-config` had. Change what you like, but keep
# the plugin sections the same as gossd's flags.
{notes}
services:
- name: tunnel
  # Tunnel clients connect here.
  addr: {tunnel_addr}
  handler:
    type: tunnel
    metadata:
      # Visitors connect here, and so do the gosts of the other hosts.
      entrypoint: {entrypoint}
      ingress: ingress-0
      sd: sd-0
  listener:
    # Or tls, ws and so on: the same as the clients' dialer.
    type: tcp

# Which tunnel a host name belongs to.
ingresses:
- name: ingress-0
{ingress}
# Where a tunnel is attached.
sds:
- name: sd-0
{}",
        *sd
    ))
}

fn section(plugin: &PluginUrls, addr: &str) -> Zeroizing<String> {
    let mut text =
        Zeroizing::new(format!("  plugin:\n    type: {}\n    addr: {}\n", plugin.r#type, quoted(addr)));
    let told = match &plugin.tls {
        Some(Tls::Checked(name)) => {
            let name = quoted(&name.to_string());
            write!(text, "    tls:\n      secure: true\n      serverName: {name}\n")
        }
        Some(Tls::Unchecked) => writeln!(text, "    tls:\n      secure: false"),
        None => Ok(()),
    };
    told.expect("a text takes everything");
    if let Some(token) = &plugin.token {
        writeln!(text, "    token: {}", quoted(token)).expect("a text takes everything");
    }
    text
}

/// A text as YAML takes it whatever is in it: JSON's way.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn parse_listen(text: &str) -> Result<String, String> {
    parse_entrypoint(text).map(|_| text.to_owned())
}

/// The command line is wrong, in a way that needs more than one flag to see.
fn wrong<T>(why: &str) -> anyhow::Result<T> {
    Err(clap::Error::raw(ErrorKind::ArgumentConflict, format!("{why}\n")).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Verb};
    use super::*;

    fn printed(flags: &[&str]) -> Result<String, String> {
        let line = [&["gossd", "gost-config"], flags].concat();
        let Verb::GostConfig(args) = Cli::try_parse_from(line).map_err(|e| e.to_string())?.verb else {
            panic!("another verb");
        };
        let plugin = plugin(&args).map_err(|error| {
            assert!(error.is::<clap::Error>(), "it ends with 2: {error}");
            error.to_string()
        })?;
        let ingress = ingress(&args, &plugin).map_err(|error| error.to_string())?;
        Ok(yaml(&args, &plugin, &ingress).to_string())
    }

    #[test]
    fn gost_is_told_to_call_this_host() {
        for (plugin, told) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("0.0.0.0:8000", "127.0.0.1:8000"),
            ("[::]:8000", "[::1]:8000"),
            ("[::ffff:0.0.0.0]:8000", "127.0.0.1:8000"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            let text = printed(&["--plugin", plugin, "--type", "grpc"]).unwrap();
            assert_eq!(text.matches(&format!("addr: \"{told}\"\n")).count(), 2, "{text}");
            let text = printed(&["--plugin", plugin]).unwrap();
            for path in ["sd", "ingress"] {
                assert!(text.contains(&format!("addr: \"http://{told}/{path}\"\n")), "{text}");
            }
        }
    }

    #[test]
    fn gost_calls_over_http_unless_a_token_or_a_socket_needs_grpc() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::write(&tokens, "secret").unwrap();
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let tokens = tokens.to_str().unwrap();
        for (flags, want) in [
            (&[][..], "http"),
            (&["--token-file", tokens], "grpc"),
            (&["--token-file", tokens, "--type", "http"], "http"),
            (&["--via", "unix", "--plugin-socket", "/s"], "grpc"),
        ] {
            let text = printed(flags).unwrap();
            assert_eq!(text.matches(&format!("type: {want}\n")).count(), 2, "{text}");
        }
        let two = ["--plugin", "10.0.0.1:8000", "--plugin", "127.0.0.1:8000", "--token-file", tokens];
        let text = printed(&[&two[..], &["--second", "10.0.0.2"]].concat()).unwrap();
        assert_eq!(text.matches("addr: \"gossd-plugin:8000\"\n").count(), 2, "{text}");
        assert!(text.contains("#   127.0.0.1 gossd-plugin\n#   10.0.0.2 gossd-plugin\n"), "{text}");
        assert!(text.contains("--plugin 10.0.0.2:8000") && text.contains("--tls-cert"), "{text}");
        let open = ["--second", "10.0.0.2", "--insecure-plugin"];
        assert!(printed(&open).unwrap().contains("addr: \"http://gossd-plugin:8000/sd\"\n"));
    }

    #[test]
    fn the_name_in_the_certificate_is_given_or_the_advertised_host_or_not_checked() {
        let files = ["--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"];
        let tls = |flags: &[&str]| {
            let text = printed(&[&files, flags].concat()).unwrap();
            text.split("tls:").nth(1).unwrap().split_once("\n\n").unwrap().0.replace("\n      ", " ")
        };
        assert_eq!(tls(&["--advertise-host", "10.0.0.1"]), " secure: true serverName: \"10.0.0.1\"");
        assert_eq!(tls(&["--advertise-host", "a", "--server-name", "b"]), " secure: true serverName: \"b\"");
        assert_eq!(tls(&["--server-name", "2001:db8::1"]), " secure: true serverName: \"[2001:db8::1]\"");
        assert_eq!(tls(&[]), " secure: false");
        assert!(printed(&files).unwrap().contains("--server-name"), "it says how to have it checked");
        assert!(!printed(&["--server-name", "b"]).unwrap().contains("serverName"), "nothing to check");
    }

    #[test]
    fn what_gost_could_not_use_is_a_wrong_command_line() {
        for (flags, why) in [
            (&["--plugin", "127.0.0.1:0"][..], "port 0"),
            (&["--second", "10.0.0.2"], "needs --token-file"),
            (&["--second", "10.0.0.2", "--via", "unix", "--plugin-socket", "/s"], "--via tcp"),
            (&["--via", "unix"], "needs --plugin-socket"),
            (&["--via", "unix", "--plugin-socket", "/s", "--type", "http"], "needs --type grpc"),
            (&["--via", "unix", "--plugin-socket", "/a b"], "a character"),
            (&["--entrypoint", ":0"], "port 0"),
            (&["--entrypoint", ""], "is empty"),
            (&["--tunnel-addr", "8421"], "not host:port"),
            (&["--type", "redis"], "invalid value 'redis'"),
            (&["--ingress", "file"], "needs --ingress-file"),
        ] {
            let told = printed(flags).unwrap_err();
            assert!(told.contains(why), "{flags:?}: {told}");
        }
    }

    #[test]
    fn a_file_takes_the_place_of_the_ingress_plugin_alone_and_says_what_it_costs() {
        let file = ["--ingress-file", "run/hosts"];
        assert_eq!(printed(&file), printed(&[]), "it is for gosts that want it");
        let text = printed(&[&file[..], &["--ingress", "file"]].concat()).unwrap();
        let here = std::env::current_dir().unwrap();
        let entry = format!("  reload: 1s\n  file:\n    path: \"{}/run/hosts\"\n", here.display());
        assert!(text.contains(&entry), "{text}");
        assert_eq!(text.matches("  plugin:\n").count(), 1, "service discovery goes on asking: {text}");
        assert!(text.contains("no names of their own") && text.contains("mode 0640"), "{text}");
    }

    #[test]
    fn the_socket_is_offered_and_used_when_asked() {
        let flags = ["--plugin-socket", "run/gossd.sock", "--tls-cert", "c", "--tls-key", "k"];
        assert!(printed(&flags).unwrap().contains("--via unix"));
        let text = printed(&[&flags[..], &["--via", "unix"]].concat()).unwrap();
        let here = std::env::current_dir().unwrap();
        let addr = format!("addr: \"unix://{}/run/gossd.sock\"", here.display());
        assert_eq!(text.matches(&addr).count(), 2, "{text}");
        assert!(!text.contains("tls:"), "{text}");
    }
}
