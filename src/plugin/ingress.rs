//! gost's ingress: which tunnel a host name belongs to. The operator's rules come before the claims of tunnels.

use super::CallError;
use super::refusals::{ClaimRefused, Refusals};
use super::reload::Latest;
use crate::agent::Agent;
use gossd_core::hostname::{ClaimPolicy, Endpoint, HashHost, Naming, TunnelId, Unclaimable};
use gossd_core::record::{FieldError, FieldProblem};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// gost's ingress, answered by one agent.
#[derive(Clone)]
pub struct Ingress {
    agent: Agent,
    names: Latest<Names>,
    refusals: Refusals,
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
    /// Who may claim what; none lets every tunnel have any name that is free.
    pub policy: Option<ClaimPolicy>,
}

impl Names {
    /// Parses fixed rules: a host name or wildcard, and `[$]UUID`.
    pub fn new<'a>(
        naming: Naming,
        fixed: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FieldError> {
        let rule = |(host, endpoint)| Ok((naming.key(host)?, parse(endpoint)?));
        let fixed = fixed.into_iter().map(rule).collect::<Result<_, FieldError>>()?;
        Ok(Self { naming, fixed, policy: None })
    }

    /// Whether a claim of a tunnel on a key may stand, by the policy; who made it with which token is not known any more.
    pub fn may_have(&self, key: &str, tunnel: TunnelId) -> bool {
        self.policy.as_ref().is_none_or(|policy| policy.may_stand(key, tunnel))
    }

    /// Why a tunnel may not have a name, whoever has it now.
    fn refusal(&self, key: &str, endpoint: Endpoint, token: Option<&str>) -> Option<ClaimRefused> {
        if let Some(fixed) = self.fixed.get(key) {
            return (fixed.tunnel != endpoint.tunnel).then_some(ClaimRefused::Configured);
        }
        if let Some(why) = self.naming.unclaimable(key) {
            return Some(ClaimRefused::Unclaimable(why));
        }
        if !self.naming.allows(key, endpoint.tunnel) {
            return Some(ClaimRefused::Operators);
        }
        let policy = self.policy.as_ref();
        let is_allowed = policy.is_none_or(|policy| policy.allows(key, endpoint.tunnel, token));
        (!is_allowed).then_some(ClaimRefused::Policy)
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
        Self { agent, names, refusals: Refusals::default() }
    }

    /// `GetRule`: the endpoint of a host, `[$]UUID`; empty if there is none. `host` comes from a visitor and may be no
    /// host name at all: then it has no endpoint.
    pub fn get_rule(&self, host: &str) -> Result<String, CallError> {
        if host.is_empty() {
            return Err(FieldError { field: "host", problem: FieldProblem::Missing }.into());
        }
        let found = self.rule(&self.names.get(), host);
        Ok(found.map_or_else(String::new, |(_, endpoint)| endpoint.to_string()))
    }

    /// The rule that decides about a host name, and who made it.
    pub fn explain(&self, host: &str) -> Option<Found> {
        let names = self.names.get();
        let (rule, endpoint) = self.rule(&names, host)?;
        let by = match rule {
            _ if names.fixed.contains_key(&rule) => By::Configured,
            _ if HashHost::parse(&rule) == Some(HashHost::of(endpoint.tunnel)) => By::Hash,
            _ => By::Claimed,
        };
        Some(Found { rule, by, endpoint })
    }

    /// The key of the rule that decides about a host name, and where it leads.
    fn rule(&self, names: &Names, host: &str) -> Option<(String, Endpoint)> {
        let own = names.naming.candidates(host).next()?;
        let mut keys = names.naming.candidates(host);
        keys.find_map(|key| self.endpoint(names, &key, &own).map(|endpoint| (key, endpoint)))
    }

    /// All rules that lead to a tunnel, but for hash hosts, in no particular order.
    pub fn rules(&self) -> Vec<Found> {
        let names = self.names.get();
        let fixed = names.fixed.keys().cloned().map(|key| (key, By::Configured));
        let claimed = self.agent.claimed_hosts().into_iter().map(|key| (key.to_string(), By::Claimed));
        let claimed = claimed.filter(|(key, _)| !names.fixed.contains_key(key));
        let found = fixed.chain(claimed).filter_map(|(rule, by)| {
            let endpoint = self.endpoint(&names, &rule, &rule)?;
            Some(Found { rule, by, endpoint })
        });
        found.collect()
    }

    /// Another number whenever a name leads elsewhere.
    pub fn revision(&self) -> u64 {
        let settings = Arc::as_ptr(&self.names.get()).addr() as u64;
        settings.wrapping_add(self.agent.hosts_revision())
    }

    /// `SetRule`, by a call with the token of this label, or of none: whether the host name now belongs to the endpoint's
    /// tunnel. Why not is remembered for [`Self::refused`].
    pub fn set_rule(&self, host: &str, endpoint: &str, token: Option<&str>) -> Result<bool, CallError> {
        let names = self.names.get();
        let key = names.naming.key(host)?;
        let endpoint = parse(endpoint)?;
        let refused = match names.refusal(&key, endpoint, token) {
            None if names.fixed.contains_key(&key) => return Ok(true),
            None if self.agent.claim(&key, endpoint, |tunnel| names.may_have(&key, tunnel))? => {
                return Ok(true);
            }
            None => ClaimRefused::Taken,
            Some(refused) => refused,
        };
        self.refusals.note(&key, endpoint.tunnel, &refused);
        Ok(false)
    }

    /// The same for an operator who moves a name here, whatever token its client has; or, if it is not to be done, what would be.
    /// An error is why not.
    pub(crate) fn take_rule(&self, host: &str, endpoint: Endpoint, dry_run: bool) -> Result<(), String> {
        let names = self.names.get();
        let key = names.naming.key(host).map_err(|error| error.to_string())?;
        match names.refusal(&key, endpoint, None) {
            Some(ClaimRefused::Policy) if names.may_have(&key, endpoint.tunnel) => {}
            Some(refused) => return Err(refused.to_string()),
            None => {}
        }
        let may_have = |tunnel| names.may_have(&key, tunnel);
        let is_taken =
            self.agent.endpoint(&key, may_have).is_some_and(|other| other.tunnel != endpoint.tunnel);
        let is_done = !is_taken
            && (dry_run || names.fixed.contains_key(&key) || {
                self.agent.claim(&key, endpoint, may_have).map_err(|full| full.to_string())?
            });
        if is_done { Ok(()) } else { Err(ClaimRefused::Taken.to_string()) }
    }

    /// Claims of a host name that were refused lately, the latest first: by which tunnels, why, and how long ago.
    pub(crate) fn refused(&self, host: &str) -> Vec<(TunnelId, ClaimRefused, Duration)> {
        let key = self.names.get().naming.key(host);
        key.map_or_else(|_| Vec::new(), |key| self.refusals.of(&key))
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
    ///
    /// `own` is the key of the name that is asked for, of which `key` may be a wildcard.
    fn endpoint(&self, names: &Names, key: &str, own: &str) -> Option<Endpoint> {
        let fixed = names.fixed.get(key).map(|Endpoint { tunnel, private }| Endpoint {
            tunnel: *tunnel,
            private: *private || self.agent.is_private(*tunnel),
        });
        // A claim leads nowhere on a name that no tunnel can have here, nor on one that the operator's policy does not give to its
        // tunnel, whichever agent took it. A wildcard leads nowhere for a name that its tunnel could not claim.
        let may_have = |tunnel| names.may_have(key, tunnel) && (key == own || names.may_have(own, tunnel));
        let is_claimable = || names.naming.is_for_tunnels(own) && names.naming.unclaimable(key).is_none();
        fixed.or_else(|| self.agent.endpoint(key, may_have).filter(|_| is_claimable()))
    }
}

fn parse(endpoint: &str) -> Result<Endpoint, FieldError> {
    let problem = if endpoint.is_empty() { FieldProblem::Missing } else { FieldProblem::Endpoint };
    Endpoint::parse(endpoint).ok_or(FieldError { field: "endpoint", problem })
}
