//! gost's ingress: which tunnel a host name belongs to. The operator's rules come before the claims of tunnels.

use super::CallError;
use super::reload::Latest;
use crate::agent::Agent;
use gossd_core::hostname::{Endpoint, HashHost, TunnelId};
use gossd_core::hostname::{Naming, Unclaimable};
use gossd_core::record::{FieldError, FieldProblem};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// gost's ingress, answered by one agent.
#[derive(Clone)]
pub struct Ingress {
    agent: Agent,
    names: Latest<Names>,
}

/// The rule that decides about a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The host name itself, or a wildcard.
    pub rule: String,
    /// Who made the rule.
    pub by: By,
    /// The endpoint to which the rule leads.
    pub endpoint: Endpoint,
}

/// Who made a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The operator.
    Configured,
    /// A client of the tunnel.
    Claimed,
    /// Nobody: every tunnel has its hash host.
    Hash,
}

/// The operator's settings for host names.
#[derive(Debug, Default)]
pub struct Names {
    /// How names are spelled, and which names tunnels may claim.
    pub naming: Naming,
    /// Rules that no claim changes, by the key of the host name.
    pub fixed: HashMap<String, Endpoint>,
}

impl Names {
    /// Parses fixed rules: a host name or wildcard, and `[$]UUID`.
    pub fn new<'a>(
        naming: Naming,
        fixed: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldError> {
        let rule = |(host, endpoint)| Ok((naming.key(host)?, parse(endpoint)?));
        let fixed = fixed.into_iter().map(rule).collect::<Result<_, FieldError>>()?;
        Ok(Self { naming, fixed })
    }

    /// The operator's rules and domains that no tunnel could claim, and why: they are in force, and may be meant so.
    pub fn unusual(&self) -> Vec<(String, Unclaimable)> {
        let names = self.fixed.keys().chain(self.naming.domains());
        let found = names.filter_map(|name| Some((name.clone(), self.naming.unclaimable(name)?)));
        let mut found: Vec<_> = found.collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found
    }

    /// The tunnels that a fixed rule makes private.
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

    /// `GetRule`: the endpoint of a host, `[$]UUID`; empty if there is none. `host` comes from a visitor and may be no
    /// host name at all: then it has no endpoint.
    pub fn get_rule(&self, host: &str) -> Result<String, CallError> {
        if host.is_empty() {
            return Err(FieldError { field: "host", problem: FieldProblem::Missing }.into());
        }
        let names = self.names.get();
        let mut keys = names.naming.candidates(host).peekable();
        let claimable = keys.peek().is_some_and(|own| names.naming.is_for_tunnels(own));
        let endpoint = keys.find_map(|key| self.endpoint(&names, &key, claimable));
        Ok(endpoint.map_or_else(String::new, |endpoint| endpoint.to_string()))
    }

    /// The rule that decides about a host name, and who made it.
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

    /// All rules that lead to a tunnel, but for hash hosts, in no particular order.
    pub fn rules(&self) -> Vec<Found> {
        let names = self.names.get();
        let fixed = names.fixed.keys().cloned().map(|key| (key, By::Configured));
        let claimed = self.agent.claimed_hosts().into_iter().map(|key| (key.to_string(), By::Claimed));
        let claimed = claimed.filter(|(key, _)| !names.fixed.contains_key(key));
        let found = fixed.chain(claimed).filter_map(|(rule, by)| {
            let endpoint = self.endpoint(&names, &rule, names.naming.is_for_tunnels(&rule))?;
            Some(Found { rule, by, endpoint })
        });
        found.collect()
    }

    /// Another number whenever a name leads elsewhere.
    pub fn revision(&self) -> u64 {
        let settings = Arc::as_ptr(&self.names.get()).addr() as u64;
        settings.wrapping_add(self.agent.hosts_revision())
    }

    /// `SetRule`: whether the host name now belongs to the endpoint's tunnel.
    pub fn set_rule(&self, host: &str, endpoint: &str) -> Result<bool, CallError> {
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

    /// The operator's settings, current and future.
    pub fn names(&self) -> &Latest<Names> {
        &self.names
    }

    /// A tunnel that any rule makes private is private under all its names. The agent also knows the tunnels that our
    /// own fixed rules make private.
    fn endpoint(&self, names: &Names, key: &str, claimable: bool) -> Option<Endpoint> {
        let fixed = names.fixed.get(key).map(|Endpoint { tunnel, private }| Endpoint {
            tunnel: *tunnel,
            private: *private || self.agent.is_private(*tunnel),
        });
        // A claim leads nowhere on a name that no tunnel can have here, whichever agent took it.
        let claimed = || self.agent.endpoint(key).filter(|_| names.naming.unclaimable(key).is_none());
        fixed.or_else(|| claimable.then(claimed).flatten())
    }
}

fn parse(endpoint: &str) -> Result<Endpoint, FieldError> {
    let problem = if endpoint.is_empty() { FieldProblem::Missing } else { FieldProblem::Endpoint };
    Endpoint::parse(endpoint).ok_or(FieldError { field: "endpoint", problem })
}
