//! A real Chromium without a window, for tests of the page: opened, clicked, typed into and looked at as by a person.
//! It uses the `DevTools` protocol, JSON over the two pipes of `--remote-debugging-pipe`. Knows nothing of gossd.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Debian's name for it, and others'.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Chromium reads messages at file descriptors 3 and 4, which only a shell can set up without unsafe code.
const PIPED: &str = r#"exec "$0" "$@" 3<&0 4>&1"#;
/// It opens only the page under test, so it needs no sandbox. As root or in a container, it could not have one.
const FLAGS: [&str; 7] = [
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
];
/// Longer than an answer of a browser takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The browser ends within this time after its pipe is closed, or is killed.
const FAREWELL: Duration = Duration::from_secs(5);

/// The colour scheme that the page is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// A browser with one tab. Ends with its value.
pub(crate) struct Browser {
    child: Child,
    /// Closing it ends the browser.
    calls: Option<ChildStdin>,
    messages: Receiver<Value>,
    last: u64,
    session: Option<String>,
    /// Events that it sent unasked.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.calls.take());
        while self.messages.recv_timeout(FAREWELL).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts a browser; `None` if there is none.
    pub(crate) fn start() -> Option<Self> {
        let program = NAMES.into_iter().find(|name| is_there(name))?;
        let profile = tempfile::tempdir().expect("a folder");
        let mut child = Command::new("sh")
            .args(["-c", PIPED, program])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut answers = BufReader::new(child.stdout.take().expect("piped")).split(0);
        let (tell, messages) = channel();
        std::thread::spawn(move || {
            while let Some(Ok(message)) = answers.next() {
                let message = serde_json::from_slice(&message).expect("the browser speaks JSON");
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let calls = child.stdin.take();
        let (session, events) = (None, Vec::new());
        let mut browser = Self { child, calls, messages, last: 0, session, events, _profile: profile };
        browser.open_tab();
        Some(browser)
    }

    fn open_tab(&mut self) {
        let tab = self.call("Target.createTarget", &json!({"url": "about:blank"}));
        let tab = json!({"targetId": tab["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", &tab);
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
    }

    /// Opens an address and waits until its document is there.
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": "about:blank"}));
        self.call("Page.navigate", &json!({"url": url}));
        self.until(PATIENCE, "document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// Sends a name and a password with every request from now on.
    pub(crate) fn give_password(&mut self, name: &str, password: &str) {
        let pair = BASE64_STANDARD.encode(format!("{name}:{password}"));
        let headers = json!({"headers": {"Authorization": format!("Basic {pair}")}});
        self.call("Network.setExtraHTTPHeaders", &headers);
    }

    /// Sets the size of the screen in CSS pixels; a narrow one is a phone.
    pub(crate) fn resize(&mut self, width: u32, height: u32, scheme: Scheme) {
        let phone = width < 500;
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", &screen);
        let scheme = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// The value of a JavaScript expression.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Lets what a test runs do what the page's policy forbids to the page.
    pub(crate) fn bypass_policy(&mut self) {
        self.call("Page.setBypassCSP", &json!({"enabled": true}));
    }

    /// Runs a program in the page.
    pub(crate) fn run(&mut self, program: &str) {
        let answer = self.call("Runtime.evaluate", &json!({"expression": program}));
        assert!(answer.get("exceptionDetails").is_none(), "{answer}");
    }

    /// The visible text of every element that a selector finds.
    pub(crate) fn texts(&mut self, selector: &str) -> Vec<String> {
        let found = self.value(&format!(
            "[...document.querySelectorAll({})].map((element) => element.innerText ?? element.textContent)",
            json!(selector)
        ));
        let texts = found.as_array().expect("a list").iter();
        texts.map(|text| text.as_str().expect("text").trim().to_owned()).collect()
    }

    /// Waits until an expression is true. Returns how long that took.
    pub(crate) fn until(&mut self, deadline: Duration, expression: &str) -> Duration {
        let start = Instant::now();
        while !self.value(&format!("Boolean({expression})")).as_bool().expect("a Boolean") {
            if start.elapsed() > deadline {
                let shown = self.value("document.body.innerText");
                panic!("not within {deadline:?}: {expression}\n{}", shown.as_str().unwrap_or_default());
            }
            self.events.extend(self.messages.recv_timeout(LOOK_AGAIN));
        }
        start.elapsed()
    }

    /// Clicks in the middle of the first element that a selector finds.
    pub(crate) fn click(&mut self, selector: &str) {
        let middle = format!(
            "(() => {{ const element = document.querySelector({}); element.scrollIntoView({{block: 'center'}}); \
             const box = element.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        );
        let middle = self.value(&middle);
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let event =
                json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Types text where the focus is.
    pub(crate) fn insert(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Presses a key such as `Tab` or `Enter`.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            _ => panic!("no code for {key}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Saves a picture of the whole page.
    pub(crate) fn picture(&mut self, file: &Path) {
        let answer =
            self.call("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        let png = BASE64_STANDARD.decode(answer["data"].as_str().expect("text")).expect("base64");
        std::fs::write(file, png).expect("a file");
    }

    /// The messages of the console, the policy and dialogs, and every exception.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        const KINDS: [&str; 4] = [
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        ];
        self.value("0");
        let said = self.events.iter();
        let said = said.filter(|event| KINDS.iter().any(|kind| event["method"] == *kind));
        said.map(|event| event["params"].to_string()).collect()
    }

    /// Every address that was requested.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.value("0");
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().expect("text").to_owned()).collect()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let calls = self.calls.as_mut().expect("open until the end");
        calls.write_all(format!("{message}\0").as_bytes()).expect("the browser runs");
        loop {
            let mut message = self.messages.recv_timeout(PATIENCE).expect("the browser answers");
            if message["id"] != self.last {
                self.events.push(message);
                continue;
            }
            assert!(message.get("error").is_none(), "{method} {parameters}: {message}");
            return message["result"].take();
        }
    }
}

fn is_there(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}
