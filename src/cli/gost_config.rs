//! `gossd gost-config`: the YAML with which a gost uses the agent beside it. Starts nothing, and reads nothing but
//! the configuration and token files.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::client;
use super::flags::{RunArgs, parse_entrypoint, parse_host};
use crate::domain::address::Host;
use crate::plugin::{http, token};

/// What is said of gost, and of the agent.
#[derive(Debug, Args)]
#[command(
    after_help = "Of a --token-file, the first token is printed: it is the one that gost sends. Keys, certificates and \
the agent's folders are not looked at."
)]
pub(super) struct GostConfigArgs {
    /// How gost calls: grpc is its own default
    #[arg(long, env = "GOSSD_TYPE", default_value = "grpc")]
    r#type: PluginType,
    /// Which of the agent's listeners gost calls: --plugin or --plugin-socket, which is for grpc only
    #[arg(long, env = "GOSSD_VIA", default_value = "tcp")]
    via: Via,
    /// Where gost's tunnel clients come in
    #[arg(long, env = "GOSSD_TUNNEL_ADDR", value_name = "ADDR", default_value = ":8421", value_parser = parse_listen)]
    tunnel_addr: String,
    /// Where visitors come in, and the gosts of other hosts
    #[arg(long, env = "GOSSD_ENTRYPOINT", value_name = "ADDR", default_value = ":8420", value_parser = parse_listen)]
    entrypoint: String,
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

/// gost's `plugin.tls`; without it, no TLS.
enum Tls {
    Checked(Host),
    Unchecked,
}

/// How gost reaches the agent.
struct Plugin {
    r#type: &'static str,
    sd: String,
    ingress: String,
    tls: Option<Tls>,
    token: Option<Zeroizing<String>>,
    /// What the operator should know, one line each.
    notes: Vec<&'static str>,
}

pub(super) fn gost_config(args: &GostConfigArgs) -> anyhow::Result<()> {
    let text = yaml(args, &plugin(args)?);
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
}

fn plugin(args: &GostConfigArgs) -> anyhow::Result<Plugin> {
    let mut plugin = match (args.via, args.r#type, &args.agent.plugin_socket) {
        (Via::Tcp, PluginType::Grpc, _) => over_grpc(args)?,
        (Via::Tcp, PluginType::Http, _) => over_http(args)?,
        (Via::Unix, PluginType::Grpc, Some(path)) => over_unix(path)?,
        (Via::Unix, PluginType::Grpc, None) => return wrong("--via unix needs --plugin-socket"),
        (Via::Unix, PluginType::Http, _) => {
            return wrong("--via unix needs --type grpc: gost's HTTP plugins speak TCP only");
        }
    };
    plugin.notes.extend(match plugin.tls {
        Some(Tls::Checked(_)) => {
            Some("serverName has to be in gossd's certificate, and this host has to trust who issued that.")
        }
        Some(Tls::Unchecked) => Some(
            "gost does not check gossd's certificate: for that, add --server-name with a name that is in it.",
        ),
        None => None,
    });
    if let Some(path) = &args.agent.token_file {
        plugin.token = Some(token::first(path).context("--token-file")?);
        plugin.notes.push("The token is a secret: keep this file from other users.");
        if args.r#type == PluginType::Http {
            plugin
                .notes
                .push("gost 3.2.6 and older send no token over HTTP: use a newer one, or --type grpc.");
        }
    }
    Ok(plugin)
}

fn over_grpc(args: &GostConfigArgs) -> anyhow::Result<Plugin> {
    let addr = beside(&args.agent.plugin)?.to_string();
    let is_offered = args.agent.plugin_socket.is_some();
    let notes = is_offered.then_some("gossd has a Unix socket as well: --via unix makes gost call that.");
    let notes = Vec::from_iter(notes);
    Ok(Plugin { r#type: "grpc", sd: addr.clone(), ingress: addr, tls: tls(args), token: None, notes })
}

fn over_http(args: &GostConfigArgs) -> anyhow::Result<Plugin> {
    let tls = tls(args);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let root = format!("{scheme}://{}", beside(&args.agent.plugin)?);
    let [sd, ingress] = [http::PATH, http::INGRESS_PATH].map(|path| format!("{root}{path}"));
    Ok(Plugin { r#type: "http", sd, ingress, tls, token: None, notes: Vec::new() })
}

fn over_unix(path: &Path) -> anyhow::Result<Plugin> {
    // gost need not run in this folder.
    let path = std::path::absolute(path).context("--plugin-socket")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@,=~".contains(c);
    let Some(path) = path.to_str().filter(|path| path.chars().all(is_plain)) else {
        return wrong("--plugin-socket has a character that gost would not take in a plugin's address");
    };
    let addr = format!("unix://{path}");
    Ok(Plugin { r#type: "grpc", sd: addr.clone(), ingress: addr, tls: None, token: None, notes: Vec::new() })
}

/// Where a gost on the same host reaches the plugin: on this host only, if it listens there.
fn beside(plugin: &[SocketAddr]) -> anyhow::Result<SocketAddr> {
    let loopback = plugin.iter().find(|address| address.ip().is_loopback());
    match loopback.or(plugin.first()) {
        Some(address) if address.port() != 0 => Ok(client::beside(*address)),
        _ => wrong("--plugin has port 0: gost has to know the real one"),
    }
}

fn tls(args: &GostConfigArgs) -> Option<Tls> {
    args.agent.tls_cert.as_ref()?;
    let name = args.server_name.as_ref().or(args.agent.advertise_host.as_ref());
    Some(name.map_or(Tls::Unchecked, |name| Tls::Checked(name.clone())))
}

fn yaml(args: &GostConfigArgs, plugin: &Plugin) -> Zeroizing<String> {
    let notes: String = plugin.notes.iter().flat_map(|note| ["# ", note, "\n"]).collect();
    let (tunnel_addr, entrypoint) = (quoted(&args.tunnel_addr), quoted(&args.entrypoint));
    let (ingress, sd) = (section(plugin, &plugin.ingress), section(plugin, &plugin.sd));
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
{}
# Where a tunnel is attached.
sds:
- name: sd-0
{}",
        *ingress, *sd
    ))
}

fn section(plugin: &Plugin, addr: &str) -> Zeroizing<String> {
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
        Ok(yaml(&args, &plugin).to_string())
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
            let text = printed(&["--plugin", plugin]).unwrap();
            assert_eq!(text.matches(&format!("addr: \"{told}\"\n")).count(), 2, "{text}");
            let text = printed(&["--plugin", plugin, "--type", "http"]).unwrap();
            for path in ["sd", "ingress"] {
                assert!(text.contains(&format!("addr: \"http://{told}/{path}\"\n")), "{text}");
            }
        }
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
            (&["--via", "unix"], "needs --plugin-socket"),
            (&["--via", "unix", "--plugin-socket", "/s", "--type", "http"], "needs --type grpc"),
            (&["--via", "unix", "--plugin-socket", "/a b"], "a character"),
            (&["--entrypoint", ":0"], "port 0"),
            (&["--entrypoint", ""], "is empty"),
            (&["--tunnel-addr", "8421"], "not host:port"),
            (&["--type", "redis"], "invalid value 'redis'"),
        ] {
            let told = printed(flags).unwrap_err();
            assert!(told.contains(why), "{flags:?}: {told}");
        }
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
