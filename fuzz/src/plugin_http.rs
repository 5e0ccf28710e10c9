//! gost's calls over HTTP through the handlers. Every call is answered at once, from memory, with one of few statuses.
//! Every answer was registered, and what was deregistered never comes back.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, Uri};
use form_urlencoded::Serializer;
use gossd::agent::Agent;
use gossd::plugin::http::{INGRESS_PATH, PATH};
use gossd::plugin::reload::Latest;
use gossd::plugin::{Caller, CaughtUp, Ingress, Names, Plugin, Reach, ServiceDiscovery, Tokens, answer};
use gossd_core::address::{Entrypoint, Host};
use gossd_core::agent::{Restored, Settings};
use gossd_core::hostname::Naming;
use gossd_core::quota::Quota;
use gossd_core::record::{Owner, check_field};
use serde::Deserialize;
use serde_json::Value;

use super::input::Input;

/// Most calls of one input.
const CALLS: usize = 6;
/// Separates calls; no text contains this byte.
const END: u8 = 0xff;

const QUOTA: Quota = Quota { records: 4, claims: 3, bytes: 4_096 };

thread_local! {
    static REACHED: Host = Host::advertised("192.0.2.7").expect("an address");
}

/// Calls, each after a byte that selects it: the query of a GET, or the body of another call.
pub fn run(data: &[u8]) {
    let mut gost = Gost::new(&mut Input(data));
    for call in data.get(1..).unwrap_or_default().split(|byte| *byte == END).take(CALLS) {
        if let Some((which, said)) = call.split_first() {
            gost.call(*which, said);
        }
    }
}

/// The body of a call on [`PATH`], as far as it is checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    id: String,
    name: String,
    node: String,
    network: String,
    address: String,
}

/// The body of a call on [`INGRESS_PATH`].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    host: String,
    endpoint: String,
}

struct Gost {
    agent: Agent,
    ingress: Ingress,
    plugin: Plugin,
    caller: Caller,
    /// Ids that were registered or healed, with their tunnels.
    registered: HashMap<String, HashSet<String>>,
    /// Ids that were deregistered and not registered since, and whether a Register came before: otherwise one may be in
    /// flight.
    released: HashMap<String, bool>,
}

impl Gost {
    fn new(input: &mut Input<'_>) -> Self {
        let owner = Owner { name: "a".parse().expect("a name"), generation: 5 };
        let settings = Settings { quota: QUOTA, ..Settings::of(owner) };
        let agent = Agent::new(settings, Restored::default());
        let (how, connection) = (input.byte(), 1);
        let fallback = (how & 1 == 1).then(|| Entrypoint::parse(":8420").expect("an address"));
        let remote = (how & 2 == 2).then_some([198, 51, 100, 9].into());
        let reach = Reach::new(Some(REACHED.with(Host::clone)), [127, 0, 0, 1].into(), fallback);
        let (_names, newest) =
            Latest::of(Names { naming: Naming::default(), fixed: HashMap::new(), policy: None });
        let ingress = Ingress::new(agent.clone(), newest);
        let sd = ServiceDiscovery::new(agent.clone(), reach);
        let (tokens, caught_up) = (Tokens::default(), CaughtUp::already());
        let plugin = Plugin { sd, ingress: ingress.clone(), tokens, caught_up };
        let caller = Caller { remote, connection };
        Self { agent, ingress, plugin, caller, registered: HashMap::new(), released: HashMap::new() }
    }

    fn call(&mut self, which: u8, said: &[u8]) {
        let method = match which % 8 {
            0..3 => Method::POST,
            3 => Method::PUT,
            4 => Method::DELETE,
            5 | 6 => Method::GET,
            _ => Method::PATCH,
        };
        match (which / 8 % 4, &method) {
            (0, &Method::GET) => self.ask_rule(said),
            (0, _) => self.set_rule(said),
            (_, &Method::GET) => self.get(said),
            (_, _) => self.write(&method, said),
        }
    }

    /// The answer. No call may wait.
    fn answer(&self, method: &Method, uri: Uri, body: &[u8]) -> (StatusCode, Bytes) {
        let mut request = Request::new(Bytes::copy_from_slice(body));
        (*request.method_mut(), *request.uri_mut()) = (method.clone(), uri);
        let (head, body) = at_once(answer(&self.plugin, self.caller, request)).into_parts();
        let status = head.status;
        assert!(
            matches!(status.as_u16(), 200 | 400 | 404 | 405 | 429),
            "{status} to {method} {}",
            String::from_utf8_lossy(&body)
        );
        if status != StatusCode::OK {
            let said: Value = serde_json::from_slice(&body).expect("an error is JSON");
            assert!(
                said["error"].as_str().is_some_and(|text| !text.is_empty() && text.len() < 4_096),
                "{said}"
            );
        }
        (status, body)
    }

    fn write(&mut self, method: &Method, body: &[u8]) {
        let (status, answer) = self.answer(method, PATH.parse().expect("a path"), body);
        if status != StatusCode::OK {
            return;
        }
        assert!(answer.is_empty(), "Go keeps the connection only then");
        let said: Fields = serde_json::from_slice(body).expect("it was understood");
        let Fields { id, name, .. } = said.clone();
        for field in [&id, &name, &said.node, &said.network, &said.address] {
            assert!(check_field("", field).is_ok(), "{said:?}");
        }
        assert!(!id.is_empty() && !name.is_empty());
        if *method == Method::DELETE {
            let was_known = self.registered.contains_key(&id);
            self.released.entry(id).or_insert(was_known);
        } else {
            let fresh = !self.registered.contains_key(&id) && !self.released.contains_key(&id);
            if *method == Method::POST && self.released.get(&id) == Some(&true) {
                self.released.remove(&id);
            }
            if *method == Method::POST && fresh {
                assert!(self.agent.resolve(&name).iter().any(|record| record.id == *id.as_str()), "{said:?}");
            }
            self.registered.entry(id).or_default().insert(name);
        }
        assert!(self.agent.counts().own_records <= self.registered.len().min(QUOTA.records));
    }

    fn get(&self, query: &[u8]) {
        let Some(uri) = uri(PATH, query) else { return };
        let name = asked(&uri, "name");
        let (status, answer) = self.answer(&Method::GET, uri, b"");
        if status != StatusCode::OK {
            return;
        }
        let answer: Value = serde_json::from_slice(&answer).expect("a list is JSON");
        for service in answer["services"].as_array().expect("never null") {
            let field = |name: &str| service[name].as_str().expect("every field is a text");
            assert_eq!(field("name"), name);
            assert!(
                self.registered.get(field("id")).is_some_and(|names| names.contains(&*name)),
                "{service}"
            );
            assert!(!self.released.contains_key(field("id")), "deregistered: {service}");
            assert!(matches!(field("network"), "tcp" | "udp") && !field("node").is_empty());
            let address = Entrypoint::parse(field("address")).expect("an address");
            assert_ne!(*address.host(), Host::Unusable, "{service}");
        }
    }

    fn set_rule(&self, body: &[u8]) {
        let (status, answer) = self.answer(&Method::PUT, INGRESS_PATH.parse().expect("a path"), body);
        if status != StatusCode::OK {
            return;
        }
        let said: Rule = serde_json::from_slice(body).expect("it was understood");
        let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
        if answer["ok"].as_bool().expect("yes or no") && !said.host.starts_with(['.', '*']) {
            let leads = self.ingress.get_rule(&said.host).expect("a host");
            let tunnel = |endpoint: &str| endpoint.trim_start_matches('$').to_ascii_lowercase();
            assert_eq!(tunnel(&leads), tunnel(&said.endpoint), "{said:?}");
        }
        assert!(self.agent.counts().own_claims <= QUOTA.claims);
    }

    fn ask_rule(&self, query: &[u8]) {
        let Some(uri) = uri(INGRESS_PATH, query) else { return };
        let (status, answer) = self.answer(&Method::GET, uri, b"");
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
            let endpoint = answer["endpoint"].as_str().expect("never null");
            assert!(matches!(endpoint.len(), 0 | 36 | 37), "{endpoint:?}");
        }
    }
}

/// A query unchanged; or, after a blank, a value to be escaped.
fn uri(path: &str, said: &[u8]) -> Option<Uri> {
    let query = match said.split_first() {
        Some((b' ', value)) => {
            let key = if path == PATH { "name" } else { "host" };
            let value = str::from_utf8(value).ok()?;
            Serializer::new(String::new()).append_pair(key, value).finish()
        }
        _ => str::from_utf8(said).ok()?.to_owned(),
    };
    format!("{path}?{query}").parse().ok()
}

fn asked(uri: &Uri, key: &str) -> String {
    let query = uri.query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// The result of a future that must not wait.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a call waits"),
    }
}
