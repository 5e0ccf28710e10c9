//! gost's ingress: which tunnel a host name belongs to. What the operator says comes before what tunnels claim.

use super::Refusal;
use super::reload::Latest;
use crate::agent::Agent;
use gossd_core::hostname::Naming;
use gossd_core::hostname::{Endpoint, HashHost, TunnelId};
use gossd_core::record::{FieldError, FieldProblem};
use std::collections::{BTreeSet, HashMap};

/// gost's ingress, as one agent answers it.
#[derive(Clone)]
pub struct Ingress {
    agent: Agent,
    names: Latest<Names>,
}

/// A rule that holds for a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The host itself, or a wildcard.
    pub rule: String,
    /// Who made it.
    pub by: By,
    /// Where it leads.
    pub endpoint: Endpoint,
}

/// Who made a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The operator.
    Configured,
    /// A tunnel's client.
    Claimed,
    /// Nobody: every tunnel has its hash host.
    Hash,
}

/// What the operator says of host names.
#[derive(Debug, Default)]
pub struct Names {
    /// How names are spelled, and which ones tunnels may claim.
    pub naming: Naming,
    /// Rules that no claim changes, by their key.
    pub fixed: HashMap<String, Endpoint>,
}

impl Names {
    /// Reads fixed rules: host, or wildcard, and `[$]UUID`.
    pub fn new<'a>(
        naming: Naming,
        fixed: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldError> {
        let rule = |(host, endpoint)| Ok((naming.key(host)?, parse(endpoint)?));
        let fixed = fixed.into_iter().map(rule).collect::<Result<_, FieldError>>()?;
        Ok(Self { naming, fixed })
    }

    /// The tunnels that a fixed rule closes to the public.
    pub fn private(&self) -> BTreeSet<TunnelId> {
        let private = self.fixed.values().filter(|endpoint| endpoint.private);
        private.map(|endpoint| endpoint.tunnel).collect()
    }
}

impl Ingress {
    /// Answers from this agent.
    pub fn new(agent: Agent, names: Latest<Names>) -> Self {
        Self { agent, names }
    }

    /// `GetRule`: the endpoint of a host, `[$]UUID`; empty if it has none. `host` is as a visitor wrote it: what
    /// is no host name has no endpoint.
    pub fn get_rule(&self, host: &str) -> Result<String, Refusal> {
        if host.is_empty() {
            return Err(FieldError { field: "host", problem: FieldProblem::Missing }.into());
        }
        let names = self.names.get();
        let mut keys = names.naming.candidates(host).peekable();
        let claimable = keys.peek().is_some_and(|own| names.naming.is_for_tunnels(own));
        let endpoint = keys.find_map(|key| self.endpoint(&names, &key, claimable));
        Ok(endpoint.map_or_else(String::new, |endpoint| endpoint.to_string()))
    }

    /// How a host name leads to an endpoint: the rule that holds, and who made it.
    pub fn explain(&self, host: &str) -> Option<Found> {
        let names = self.names.get();
        let mut keys = names.naming.candidates(host).peekable();
        let claimable = keys.peek().is_some_and(|own| names.naming.is_for_tunnels(own));
        keys.find_map(|rule| {
            let endpoint = self.endpoint(&names, &rule, claimable)?;
            let by = match rule {
                _ if names.fixed.contains_key(&rule) => By::Configured,
                _ if HashHost::parse(&rule) == Some(HashHost::of(endpoint.tunnel)) => By::Hash,
                _ => By::Claimed,
            };
            Some(Found { rule, by, endpoint })
        })
    }

    /// `SetRule`: whether the host is the endpoint's tunnel's now.
    pub fn set_rule(&self, host: &str, endpoint: &str) -> Result<bool, Refusal> {
        let names = self.names.get();
        let key = names.naming.key(host)?;
        let endpoint = parse(endpoint)?;
        if let Some(fixed) = names.fixed.get(&key) {
            return Ok(fixed.tunnel == endpoint.tunnel);
        }
        if !names.naming.allows(&key, endpoint.tunnel) {
            return Ok(false);
        }
        Ok(self.agent.claim(&key, endpoint)?)
    }

    /// The agent that answers.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// What the operator says, as of now and later.
    pub fn names(&self) -> &Latest<Names> {
        &self.names
    }

    /// A tunnel that any rule closes to the public is private under all its names: what our own rules close, the agent
    /// knows like what others do.
    fn endpoint(&self, names: &Names, key: &str, claimable: bool) -> Option<Endpoint> {
        let fixed = names.fixed.get(key).map(|Endpoint { tunnel, private }| Endpoint {
            tunnel: *tunnel,
            private: *private || self.agent.is_private(*tunnel),
        });
        fixed.or_else(|| claimable.then(|| self.agent.endpoint(key)).flatten())
    }
}

fn parse(endpoint: &str) -> Result<Endpoint, FieldError> {
    let problem = if endpoint.is_empty() { FieldProblem::Missing } else { FieldProblem::Endpoint };
    Endpoint::parse(endpoint).ok_or(FieldError { field: "endpoint", problem })
}
