//! What gost asks, and what it is answered, in whatever protocol: an adapter makes a [`Call`] of bytes, and bytes of a [`Reply`].

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use super::{CallError, Caller, Plugin, Program};
use gossd_core::record::{Draft, Record};

/// The kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Register,
    Renew,
    Deregister,
    Get,
    GetRule,
    SetRule,
    /// What means nothing at a plugin's path.
    Other,
}

impl Verb {
    /// As metrics name it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Renew => "renew",
            Self::Deregister => "deregister",
            Self::Get => "get",
            Self::GetRule => "get_rule",
            Self::SetRule => "set_rule",
            Self::Other => "other",
        }
    }
}

/// A call with its fields as they were sent.
#[derive(Debug)]
pub(super) enum Call<'a> {
    Register(Connector<'a>),
    Renew(Connector<'a>),
    Deregister(Connector<'a>),
    Get(Cow<'a, str>),
    GetRule(Cow<'a, str>),
    SetRule(Rule<'a>),
}

/// What a call is answered.
#[derive(Debug)]
pub(super) enum Reply {
    /// The record was taken, renewed or released.
    Done,
    /// The records of a tunnel.
    Records(Vec<Arc<Record>>),
    /// The endpoint of a host name, or nothing.
    Endpoint(String),
    /// Whether the host name is the tunnel's.
    IsSet(bool),
}

/// The fields of a write. gost sends all five; the examples in its documentation leave some out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Connector<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) node: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) network: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) address: Cow<'a, str>,
}

impl Connector<'_> {
    fn draft(&self) -> Draft<'_> {
        let Self { id, name, node, network, address } = self;
        Draft { id, name, node, network, address }
    }
}

/// The fields of a `SetRule`, without the name of gost's service, which means nothing here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rule<'a> {
    #[serde(borrow)]
    pub(super) host: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) endpoint: Cow<'a, str>,
}

impl Plugin {
    /// Answers a call that was admitted, with this token or without one. Waits for nothing, but that reads of an agent that
    /// has just started wait until it has caught up.
    pub(super) async fn answer(
        &self,
        caller: Caller,
        by: Program,
        token: Option<&[u8]>,
        call: Call<'_>,
    ) -> Result<Reply, CallError> {
        match call {
            Call::Register(connector) => {
                self.sd.register(caller, by, connector.draft()).map(|()| Reply::Done)
            }
            Call::Renew(connector) => self.sd.renew(caller, connector.draft()).map(|()| Reply::Done),
            Call::Deregister(connector) => {
                self.sd.deregister(caller, connector.draft()).map(|()| Reply::Done)
            }
            Call::Get(name) => {
                self.sd.called(caller, by, true);
                self.caught_up.wait().await;
                self.sd.get(caller, by, &name).map(Reply::Records)
            }
            Call::GetRule(host) => self.endpoint(caller, by, &host).await.map(Reply::Endpoint),
            Call::SetRule(Rule { host, endpoint }) => {
                let label = self.tokens.label(token);
                self.ingress.set_rule(&host, &endpoint, label.as_deref()).map(Reply::IsSet)
            }
        }
    }

    /// A known rule is the answer at once; that there is none is the answer only once the agent has caught up.
    async fn endpoint(&self, caller: Caller, by: Program, host: &str) -> Result<String, CallError> {
        self.sd.called(caller, by, !is_nobodys(host));
        let endpoint = self.ingress.get_rule(host)?;
        if !endpoint.is_empty() {
            return Ok(endpoint);
        }
        self.caught_up.wait().await;
        self.ingress.get_rule(host)
    }
}

/// Whether an agent asks, by way of its gost, and no visitor. A host may come with a port.
fn is_nobodys(host: &str) -> bool {
    host.split(':').next() == Some(gossd_core::agent::NOBODYS)
}

/// How a call ended, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Unknown,
    Full,
    Unauthenticated,
    Slow,
    Refused,
}

impl Outcome {
    pub(super) fn of(answered: &Result<Reply, CallError>) -> Self {
        match answered {
            Ok(_) => Self::Done,
            Err(CallError::Unknown) => Self::Unknown,
            Err(CallError::Full(_)) => Self::Full,
            Err(CallError::Unauthenticated(_)) => Self::Unauthenticated,
            Err(CallError::Field(_)) => Self::Refused,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Unknown => "unknown",
            Self::Full => "full",
            Self::Unauthenticated => "unauthenticated",
            Self::Slow => "slow",
            Self::Refused => "refused",
        }
    }

    /// Whether the call was served and not refused: a caller that was served once is not the first to lose its connection.
    pub(super) fn is_served(self) -> bool {
        self == Self::Done
    }
}
