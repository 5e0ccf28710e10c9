//! A call means the same in every protocol: one table of calls, through each adapter and through both in turns, so that
//! each adapter knows what the other was sent.

use crate::common::http::{Answer, Connection, request};
use crate::services::ingress_client::IngressClient;
use crate::services::sd_client::SdClient;
use gossd::config::Config;
use gossd::daemon::Daemon;
use gossd::plugin::grpc::generated::{
    DeregisterRequest, GetRuleRequest, GetServiceRequest, RegisterRequest, RenewRequest, Service,
    SetRuleRequest,
};
use gossd_core::quota::Quota;
use gossd_core::record::{Draft, MAX_FIELD};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use self::Call::{Deregister, Get, GetRule, Register, Renew, SetRule};
use self::Meaning::{Done, Full, Refused, Rule, Set, Unknown};

/// A call in any protocol.
#[derive(Clone, Copy, Debug)]
enum Call<'a> {
    Register(Draft<'a>),
    Renew(Draft<'a>),
    Deregister(Draft<'a>),
    Get(&'a str),
    GetRule(&'a str),
    SetRule(&'a str, &'a str),
}

/// An answer in any protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Done,
    /// Renew of an unknown id.
    Unknown,
    /// Sorted by id: the order of a Get is not up to the adapters.
    Listed(Vec<[String; 5]>),
    Rule(String),
    Set(bool),
    /// The call is invalid, and why.
    Refused(String),
    /// There is no room, and where.
    Full(String),
}

/// Calls to one agent in a row, and their answers.
type Story<'a> = Vec<(Call<'a>, Meaning)>;

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http,
    Grpc,
}

/// The protocols of the odd and of the even calls of a story.
const TURNS: [[Protocol; 2]; 4] = [
    [Protocol::Http, Protocol::Http],
    [Protocol::Grpc, Protocol::Grpc],
    [Protocol::Http, Protocol::Grpc],
    [Protocol::Grpc, Protocol::Http],
];

/// As gost registers.
const ONE: Draft<'_> = Draft { id: "i", name: "t", node: "n", network: "tcp", address: "10.0.0.1:80" };

/// As gost renews and deregisters.
fn named(draft: Draft<'_>) -> Draft<'_> {
    Draft { network: "", address: "", ..draft }
}

fn listed(drafts: &[Draft<'_>]) -> Meaning {
    let fields = |d: &Draft<'_>| [d.id, d.name, d.node, d.network, d.address].map(str::to_owned);
    Meaning::Listed(drafts.iter().map(fields).collect())
}

fn refused(text: &str) -> Meaning {
    Refused(text.to_owned())
}

// The table.

fn a_connectors_life() -> Story<'static> {
    vec![
        (Get("t"), listed(&[])),
        (Register(ONE), Done),
        (Get("t"), listed(&[ONE])),
        (Renew(named(ONE)), Done),
        (Get("t"), listed(&[ONE])),
        (Deregister(named(ONE)), Done),
        (Get("t"), listed(&[])),
        (Renew(named(ONE)), Done),
        (Get("t"), listed(&[])),
        (Register(ONE), Done),
        (Get("t"), listed(&[ONE])),
        (Deregister(named(ONE)), Done),
        (Get("t"), listed(&[])),
        (Register(ONE), Done),
        (Get("t"), listed(&[ONE])),
    ]
}

fn connectors_of_two_tunnels() -> Story<'static> {
    let [a, b] = ["a", "b"].map(|id| Draft { id, ..ONE });
    let other = Draft { id: "c", name: "other", node: "m", network: "udp", address: "10.0.0.2:80" };
    vec![
        (Register(a), Done),
        (Register(other), Done),
        (Register(b), Done),
        (Get("t"), listed(&[a, b])),
        (Get("other"), listed(&[other])),
        (Deregister(named(a)), Done),
        (Get("t"), listed(&[b])),
        (Get("other"), listed(&[other])),
        (Get("T"), listed(&[])),
    ]
}

fn a_deregister_overtakes_its_register() -> Story<'static> {
    vec![(Deregister(named(ONE)), Done), (Register(ONE), Done), (Get("t"), listed(&[])), (Renew(ONE), Done)]
}

fn an_id_that_nobody_knows() -> Story<'static> {
    vec![(Renew(named(ONE)), Unknown), (Get("t"), listed(&[])), (Deregister(ONE), Done), (Renew(ONE), Done)]
}

fn an_empty_network_is_tcp() -> Story<'static> {
    vec![(Register(Draft { network: "", ..ONE }), Done), (Get("t"), listed(&[ONE]))]
}

fn addresses_are_completed() -> Story<'static> {
    let mut story = Vec::new();
    for (entrypoint, address) in [
        (":8420", "10.9.8.7:8420"),
        ("0.0.0.0:80", "10.9.8.7:80"),
        ("[::]:80", "10.9.8.7:80"),
        ("127.0.0.11:80", "10.9.8.7:80"),
        ("localhost:80", "10.9.8.7:80"),
        ("10.0.0.2:80", "10.0.0.2:80"),
        ("[2001:db8::9]:80", "[2001:db8::9]:80"),
        ("gost_1.example.org:80", "gost_1.example.org:80"),
    ] {
        let id = entrypoint;
        story.extend([
            (Register(Draft { id, address: entrypoint, ..ONE }), Done),
            (Get("t"), listed(&[Draft { id, address, ..ONE }])),
            (Deregister(Draft { id, ..named(ONE) }), Done),
        ]);
    }
    story
}

/// `host@routerID` of the router handler; clients choose the host.
fn router_names() -> Vec<String> {
    let hosts = [
        "",
        "host",
        "two words",
        "a+b",
        "a@b",
        "a%40b",
        "50%",
        "<a&b=>#?/",
        "\"\\'",
        "schöne Grüße",
        "雪😀",
        "\u{2028}",
        "null",
    ];
    let longest = ["h".repeat(255), "ü".repeat(127)];
    let hosts = hosts.into_iter().map(str::to_owned).chain(longest);
    hosts.map(|host| host + "@b0e4f6f0-5ed7-4f9c-8d2f-0a4a1e6f8f11").collect()
}

fn a_router_host_is_found_by_its_name(names: &[String]) -> Story<'_> {
    let router = |name| Draft { id: name, name, network: "udp", ..ONE };
    let register = names.iter().map(|name| (Register(router(name)), Done));
    let get = names.iter().map(|name| (Get(name), listed(&[router(name)])));
    register.chain(get).collect()
}

fn nothing_changes(calls: Vec<(Call<'_>, Meaning)>) -> Story<'_> {
    let mut story = vec![(Register(ONE), Done)];
    for row in calls {
        story.extend([row, (Get("t"), listed(&[ONE]))]);
    }
    story
}

fn missing_fields_change_nothing() -> Story<'static> {
    let mut calls = vec![(Get(""), refused("name is missing"))];
    for (draft, text) in [
        (Draft::default(), "id is missing"),
        (Draft { id: "", ..ONE }, "id is missing"),
        (Draft { name: "", ..ONE }, "name is missing"),
        (Draft { node: "", ..ONE }, "node is missing"),
    ] {
        calls.extend([Register, Renew, Deregister].map(|call: fn(_) -> _| (call(draft), refused(text))));
    }
    nothing_changes(calls)
}

fn what_nobody_could_dial_changes_nothing() -> Story<'static> {
    let mut calls = Vec::new();
    for network in ["sctp", "TCP", "tcp "] {
        calls.push((Register(Draft { network, ..ONE }), refused("network is neither tcp nor udp")));
    }
    let bad_port = "address has a port that is not a number from 1 to 65535";
    let not_host_port = "address is not host:port (an IPv6 host needs brackets)";
    let port_zero = "address has port 0: give gost's `entrypoint` a fixed port";
    for (address, text) in [
        ("", EMPTY),
        ("10.0.0.2", not_host_port),
        ("fd00::2:80", not_host_port),
        (":0", port_zero),
        ("10.0.0.2:0", port_zero),
        ("10.0.0.2:", bad_port),
        ("10.0.0.2:70000", bad_port),
        ("ho st:80", "address has a host that is neither an IP address nor a host name"),
    ] {
        calls.push((Register(Draft { address, ..ONE }), refused(text)));
    }
    nothing_changes(calls)
}

const EMPTY: &str =
    "address is empty: set `entrypoint` in gost's tunnel service, for example `entrypoint: :8420`";

/// gost has no address if its configuration has a list of entrypoints, and no Renew has one.
fn a_missing_address_is_that_of_the_hosts_gost() -> Story<'static> {
    let unsaid = |id, node| Draft { id, node, address: "", ..ONE };
    let [first, last, udp] = ["10.9.8.7:8420", "10.9.8.7:8421", "10.9.8.7:90"];
    let at = |id, node, address| Draft { id, node, address, ..ONE };
    let healed = Draft { name: "u", ..at("e", "o", last) };
    let router = |id, address| Draft { id, name: "host@r", network: "udp", address, ..ONE };
    vec![
        (Register(ONE), Done),
        // That is no address of this host, so perhaps of none.
        (Register(unsaid("a", "n")), refused(EMPTY)),
        (Renew(named(healed)), Unknown),
        (Deregister(named(ONE)), Done),
        (Register(at("a", "n", ":8420")), Done),
        (Register(unsaid("b", "n")), Done),
        (Register(unsaid("c", "p")), Done),
        (Register(at("d", "m", ":8421")), Done),
        (Register(unsaid("f", "n")), Done),
        (
            Get("t"),
            listed(&[
                at("a", "n", first),
                at("b", "n", first),
                at("c", "p", first),
                at("d", "m", last),
                at("f", "n", first),
            ]),
        ),
        (Renew(named(healed)), Done),
        (Get("u"), listed(&[healed])),
        (Register(router("r", "")), refused(EMPTY)),
        (Renew(named(router("r", ""))), Unknown),
        (Register(router("h", ":90")), Done),
        (Register(router("r", "")), Done),
        (Renew(named(router("s", ""))), Done),
        (Get("host@r"), listed(&[router("h", udp), router("r", udp), router("s", udp)])),
    ]
}

fn fields_out_of_bounds_change_nothing(long: &str) -> Story<'_> {
    let mut calls = Vec::new();
    let too_long = format!("is longer than {MAX_FIELD} bytes");
    for (value, problem) in [
        (long, &*too_long),
        ("a\0b", "contains a control character"),
        ("a\nb", "contains a control character"),
        ("a\u{85}b", "contains a control character"),
    ] {
        calls.push((Get(value), Refused(format!("name {problem}"))));
        for (field, draft) in [
            ("id", Draft { id: value, ..ONE }),
            ("name", Draft { name: value, ..ONE }),
            ("node", Draft { node: value, ..ONE }),
            ("network", Draft { network: value, ..ONE }),
            ("address", Draft { address: value, ..ONE }),
        ] {
            let refusal = Refused(format!("{field} {problem}"));
            calls
                .extend([Register, Renew, Deregister].map(|call: fn(_) -> _| (call(draft), refusal.clone())));
        }
    }
    nothing_changes(calls)
}

fn a_host_without_a_rule() -> Story<'static> {
    vec![
        (GetRule("unknown.example.org"), Rule(String::new())),
        (GetRule("unknown.example.org:80"), Rule(String::new())),
    ]
}

/// Two tunnels.
const FIRST: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const SECOND: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";

fn leads_to(endpoint: &str) -> Meaning {
    Rule(endpoint.to_owned())
}

fn two_tunnels_want_one_host() -> Story<'static> {
    vec![
        (SetRule("shop.example.org", FIRST), Set(true)),
        (GetRule("shop.example.org"), leads_to(FIRST)),
        (GetRule("Shop.Example.ORG:8420"), leads_to(FIRST)),
        (SetRule("shop.example.org", SECOND), Set(false)),
        (SetRule("SHOP.example.org:80", FIRST), Set(true)),
        (SetRule("shop.example.org", "$4d21094e-b74c-4916-86c1-d9fa36ea677b"), Set(true)),
        (GetRule("shop.example.org"), leads_to("$4d21094e-b74c-4916-86c1-d9fa36ea677b")),
        (SetRule("*.example.org", SECOND), Set(true)),
        (GetRule("a.b.example.org"), leads_to(SECOND)),
        (GetRule("example.org"), leads_to(SECOND)),
        (GetRule("example.com"), leads_to("")),
    ]
}

fn a_live_tunnel_has_its_hash_host() -> Story<'static> {
    let record = Draft { name: FIRST, ..ONE };
    vec![
        (GetRule("a6265c6d9847a4be"), leads_to("")),
        (Register(record), Done),
        (GetRule("a6265c6d9847a4be"), leads_to(FIRST)),
        (SetRule("a6265c6d9847a4be", SECOND), Set(false)),
        (Deregister(named(record)), Done),
        (GetRule("a6265c6d9847a4be"), leads_to("")),
        (SetRule("a6265c6d9847a4be", FIRST), Set(true)),
        (GetRule("a6265c6d9847a4be:80"), leads_to(FIRST)),
    ]
}

/// A private tunnel is private under all its names, whatever makes it so.
fn a_private_tunnel() -> Story<'static> {
    const PRIVATE: &str = "$4d21094e-b74c-4916-86c1-d9fa36ea677b";
    vec![
        (Register(Draft { name: FIRST, ..ONE }), Done),
        (SetRule("shop", FIRST), Set(true)),
        (SetRule("*.example.org", FIRST), Set(true)),
        (SetRule("other", SECOND), Set(true)),
        (GetRule("a6265c6d9847a4be"), leads_to(FIRST)),
        (SetRule("admin", PRIVATE), Set(true)),
        (GetRule("a6265c6d9847a4be:80"), leads_to(PRIVATE)),
        (GetRule("shop"), leads_to(PRIVATE)),
        (GetRule("a.example.org"), leads_to(PRIVATE)),
        (GetRule("other"), leads_to(SECOND)),
        (SetRule("admin", FIRST), Set(true)),
        (GetRule("shop"), leads_to(FIRST)),
        (GetRule("a6265c6d9847a4be"), leads_to(FIRST)),
    ]
}

fn rules_that_make_no_sense(long: &str) -> Story<'_> {
    let mut story = vec![(SetRule("shop", FIRST), Set(true)), (GetRule(""), refused("host is missing"))];
    for (host, endpoint, text) in [
        ("", FIRST, "host is missing"),
        ("shop", "", "endpoint is missing"),
        ("a b", FIRST, "host is not a host name"),
        (long, FIRST, "host is not a host name"),
        ("shop", "10.0.0.1:80", "endpoint is not a tunnel id, nor one behind a $"),
        ("shop", "$", "endpoint is not a tunnel id, nor one behind a $"),
    ] {
        story.extend([(SetRule(host, endpoint), refused(text)), (GetRule("shop"), leads_to(FIRST))]);
    }
    story.extend(["a b", long, "..", "[::1", "ü"].map(|host| (GetRule(host), leads_to(""))));
    story
}

fn an_agent_that_is_full() -> Story<'static> {
    let third = Draft { id: "third", ..ONE };
    let full = |what| Full(format!("this agent already holds {what}"));
    vec![
        (Register(ONE), Done),
        (Register(Draft { id: "second", ..ONE }), Done),
        (Register(third), full("2 records (--max-records)")),
        (Renew(named(ONE)), Done),
        (Renew(named(third)), full("2 records (--max-records)")),
        (SetRule("one", FIRST), Set(true)),
        (SetRule("two", FIRST), Set(true)),
        (SetRule("three", FIRST), full("2 ingress rules (--max-rules)")),
        (SetRule("two", SECOND), Set(false)),
        (GetRule("one"), leads_to(FIRST)),
        (Get("t"), listed(&[ONE, Draft { id: "second", ..ONE }])),
        (Deregister(named(ONE)), Done),
        (Register(third), Done),
    ]
}

#[tokio::test]
async fn a_call_means_the_same_whatever_brings_it() {
    let names = router_names();
    let long = "x".repeat(MAX_FIELD + 1);
    for (title, story) in [
        ("a connector's life", a_connectors_life()),
        ("connectors of two tunnels", connectors_of_two_tunnels()),
        ("a Deregister overtakes its Register", a_deregister_overtakes_its_register()),
        ("an id that nobody knows", an_id_that_nobody_knows()),
        ("an empty network is tcp", an_empty_network_is_tcp()),
        ("addresses are completed", addresses_are_completed()),
        ("a router host is found by its name", a_router_host_is_found_by_its_name(&names)),
        ("missing fields change nothing", missing_fields_change_nothing()),
        ("what nobody could dial changes nothing", what_nobody_could_dial_changes_nothing()),
        ("an address that is not said", a_missing_address_is_that_of_the_hosts_gost()),
        ("a private tunnel", a_private_tunnel()),
        ("fields out of bounds change nothing", fields_out_of_bounds_change_nothing(&long)),
        ("a host without a rule", a_host_without_a_rule()),
        ("two tunnels want one host", two_tunnels_want_one_host()),
        ("a live tunnel has its hash host", a_live_tunnel_has_its_hash_host()),
        ("rules that make no sense change nothing", rules_that_make_no_sense(&long)),
    ] {
        tell(title, &story, Quota::default()).await;
    }
    let two = Quota { records: 2, claims: 2, ..Quota::default() };
    tell("an agent that is full", &an_agent_that_is_full(), two).await;
}

/// Makes the calls of a story, through each adapter and in turns.
async fn tell(title: &str, story: &Story<'_>, quota: Quota) {
    for turns in TURNS {
        let mut caller = Caller::start(quota).await;
        for (n, (call, meaning)) in story.iter().enumerate() {
            let by = turns[n % 2];
            assert_eq!(caller.call(by, *call).await, *meaning, "{title}, line {n}: {call:?} by {by:?}");
        }
    }
}

// The adapters, from outside.

/// An agent and a connection to it in each protocol.
struct Caller {
    _agent: Daemon,
    http: Connection,
    sd: SdClient<Channel>,
    ingress: IngressClient<Channel>,
}

impl Caller {
    async fn start(quota: Quota) -> Self {
        let config = Config::loopback("a".parse().expect("a name"));
        let advertise = Some("10.9.8.7".parse().expect("a host"));
        let agent = Daemon::start(Config { advertise, quota, ..config }).await.expect("the agent starts");
        let http = Connection::open(agent.plugin).await;
        let endpoint = Endpoint::from_shared(format!("http://{}", agent.plugin)).expect("an address");
        let channel = endpoint.connect().await.expect("the agent listens");
        let (sd, ingress) = (SdClient::new(channel.clone()), IngressClient::new(channel));
        Self { _agent: agent, http, sd, ingress }
    }

    async fn call(&mut self, by: Protocol, call: Call<'_>) -> Meaning {
        match by {
            Protocol::Http => read(call, &self.http.call(&written(call)).await),
            Protocol::Grpc => self.grpc(call).await.unwrap_or_else(|status| told(&status)),
        }
    }

    async fn grpc(&mut self, call: Call<'_>) -> Result<Meaning, Status> {
        Ok(match call {
            Register(draft) => {
                let reply = self.sd.register(RegisterRequest { service: Some(service(draft)) }).await?;
                assert!(reply.into_inner().ok, "gost takes anything else for a failure");
                Done
            }
            Deregister(draft) => {
                let reply = self.sd.deregister(DeregisterRequest { service: Some(service(draft)) }).await?;
                assert!(reply.into_inner().ok, "gost takes anything else for a failure");
                Done
            }
            Renew(draft) => {
                let reply = self.sd.renew(RenewRequest { service: Some(service(draft)) }).await?;
                if reply.into_inner().ok { Done } else { Unknown }
            }
            Get(name) => {
                let reply = self.sd.get(GetServiceRequest { name: name.into() }).await?;
                let services = reply.into_inner().services.into_iter();
                by_id(services.map(|s| [s.id, s.name, s.node, s.network, s.address]).collect())
            }
            GetRule(host) => {
                let request = GetRuleRequest { host: host.into(), service: "service-0".into() };
                Rule(self.ingress.get_rule(request).await?.into_inner().endpoint)
            }
            SetRule(host, endpoint) => {
                let [host, endpoint, service] = [host, endpoint, "service-0"].map(str::to_owned);
                let request = SetRuleRequest { host, endpoint, service };
                Set(self.ingress.set_rule(request).await?.into_inner().ok)
            }
        })
    }
}

fn service(draft: Draft<'_>) -> Service {
    let [id, name, node, network, address] =
        [draft.id, draft.name, draft.node, draft.network, draft.address].map(str::to_owned);
    Service { id, name, node, network, address }
}

fn by_id(mut services: Vec<[String; 5]>) -> Meaning {
    services.sort();
    Meaning::Listed(services)
}

/// The meaning of a gRPC error.
fn told(status: &Status) -> Meaning {
    match status.code() {
        Code::InvalidArgument => refused(status.message()),
        Code::ResourceExhausted => Full(status.message().to_owned()),
        _ => panic!("{status}"),
    }
}

/// A call as an HTTP request.
fn written(call: Call<'_>) -> String {
    let write = |method, Draft { id, name, node, network, address }| {
        let body = json!({"id": id, "name": name, "node": node, "network": network, "address": address});
        request(method, "/sd", &body.to_string())
    };
    let ask = |path: &str, parameters: &[(&str, &str)]| {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        request("GET", &format!("{path}?{query}"), "")
    };
    match call {
        Register(draft) => write("POST", draft),
        Renew(draft) => write("PUT", draft),
        Deregister(draft) => write("DELETE", draft),
        Get(name) => ask("/sd", &[("name", name)]),
        GetRule(host) => ask("/ingress", &[("host", host), ("service", "service-0")]),
        SetRule(host, endpoint) => {
            let body = json!({"service": "service-0", "host": host, "endpoint": endpoint});
            request("PUT", "/ingress", &body.to_string())
        }
    }
}

/// The meaning of an HTTP answer.
fn read(call: Call<'_>, answer: &Answer) -> Meaning {
    let text = |value: &Value| value.as_str().expect("text, never null").to_owned();
    match (answer.status(), call) {
        (200, Register(_) | Renew(_) | Deregister(_)) => {
            assert_eq!(answer.body, "");
            Done
        }
        (200, Get(_)) => {
            let json = answer.json();
            let services = json["services"].as_array().expect("a list, never null").iter();
            let fields = ["id", "name", "node", "network", "address"];
            by_id(services.map(|s| fields.map(|field| text(&s[field]))).collect())
        }
        (200, GetRule(_)) => Rule(text(&answer.json()["endpoint"])),
        (200, SetRule(..)) => Set(answer.json()["ok"].as_bool().expect("true or false")),
        (404, Renew(_)) => Unknown,
        (400, _) => Refused(text(&answer.json()["error"])),
        (429, _) => Full(text(&answer.json()["error"])),
        (other, _) => panic!("{other} to {call:?}: {answer:?}"),
    }
}
