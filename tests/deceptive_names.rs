//! Names that strangers choose so that they look like others on a terminal: whoever reads them sees what is there.

use std::time::Duration;

use crate::common::eventually;
use crate::common::gost::FakeGost;
use crate::common::http::{call, request};
use crate::common::process::{Process, gossd};

const SOON: Duration = Duration::from_secs(10);
/// Reverses the direction, hides characters, ends lines, and starts a terminal's command without an escape.
const DECEPTIVE: &str = "t\u{202e}fdp\u{2066}.\u{200b}exe\u{feff}\u{2028}\u{9b}31m";

fn assert_visible(what: &str, text: &str) {
    let hidden = text.chars().find(|c| {
        matches!(c, '\u{80}'..='\u{9f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    });
    assert_eq!(hidden, None, "{what}: {text:?}");
}

#[tokio::test]
async fn nothing_hidden_is_printed_or_logged_and_json_stays_the_same() {
    for format in ["text", "json"] {
        let agent = Process::start("a", &["--log-level", "trace", "--log-format", format]);
        let mut gost = FakeGost::start("n", agent.plugin).await;
        let address = gost.entrypoint.to_string();
        // A person's call, whose name nobody else checks.
        let name = format!("{DECEPTIVE}@router");
        let body =
            serde_json::json!({"id": "1", "name": name, "node": "n", "network": "udp", "address": address});
        let answer = call(agent.plugin, &request("POST", "/sd", &body.to_string())).await;
        let admin = agent.admin.to_string();
        if answer.status() == 200 {
            for args in [
                &["services"][..],
                &["services", "--json"],
                &["explain", &name],
                &["explain", "--json", &name],
                &["get", &name],
            ] {
                let output = gossd().args(args).args(["--admin", &admin]).output().expect("gossd runs");
                let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
                assert!(!text.is_empty());
                assert_visible(&format!("{args:?}"), &text);
                if args.contains(&"--json") {
                    let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    assert!(read.to_string().contains('\u{202e}'), "it is the same name: {text}");
                }
            }
        }
        // A host that is logged because it is refused.
        let foreign =
            request("GET", "/sd?name=t", "").replacen("127.0.0.1:8000", &format!("{DECEPTIVE}.example"), 1);
        assert_eq!(call(agent.plugin, &foreign).await.status(), 403);
        gost.register("2", "t").await;
        let absent = gossd().args(["get", DECEPTIVE, "--admin", &admin]).output().expect("gossd runs");
        assert_visible("an answer about an unknown name", &String::from_utf8_lossy(&absent.stdout));
        eventually(SOON, "it is logged", || agent.said().contains("--plugin-host")).await;
        let log = agent.log();
        assert_visible("the log", &log);
    }
}
