//! What gost registers, checked: a record has an id, a tunnel name, an instance and an address, each within
//! its bounds. Knows nothing of how it was spelled on the wire.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::address::{Address, AddressError, Entrypoint, Host};
use super::label::Label;

/// Longest field, in bytes. gost's longest is the router handler's name: 255 bytes of host, `@` and a UUID.
pub const MAX_FIELD: usize = 512;
/// Longest agent name, in bytes: the cards of a thousand agents must fit one message.
pub const MAX_AGENT_NAME: usize = 64;

/// One connector of one tunnel, with an address that other hosts can dial. Its fields are encoded in this order, so
/// that they are never changed; how one is added, [`super::codec`] says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Connector id: unique per bind, never reused.
    pub id: Label,
    /// Tunnel id; the router handler's is `host@routerID`.
    pub name: Label,
    /// The gost handler instance that holds the connector.
    pub node: Label,
    /// What the connector carries.
    pub network: Network,
    /// `host:port` of the instance's entrypoint, completed.
    pub address: Address,
}

impl Record {
    /// What it counts against a quota, in bytes.
    pub fn size(&self) -> usize {
        let Self { id, name, node, network: _, address } = self;
        id.text_len() + name.text_len() + node.text_len() + address.text_len() + size_of::<Self>()
    }

    /// Whether a Register can have made it.
    pub fn is_plausible(&self) -> bool {
        let Self { id, name, node, network: _, address } = self;
        [id, name, node].iter().all(|label| label.is_given()) && address.is_entrypoint()
    }

    /// Whether gost's router handler registered it: then its address is a UDP port.
    pub fn is_routers(&self) -> bool {
        self.network == Network::Udp && self.name.text().contains('@')
    }
}

/// What a connector carries. Encoded by its number: a variant is never changed, only added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Network {
    /// Streams; also what an empty network means.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The fields of a call as gost or a person sent them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draft<'a> {
    /// See [`Record::id`].
    pub id: &'a str,
    /// See [`Record::name`].
    pub name: &'a str,
    /// See [`Record::node`].
    pub node: &'a str,
    /// `tcp`, `udp` or empty.
    pub network: &'a str,
    /// gost's `entrypoint`; empty on Renew and Deregister.
    pub address: &'a str,
}

/// A field that cannot be taken. Nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct FieldError {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: FieldProblem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// Not given, or empty.
    #[error("is missing")]
    Missing,
    /// Over [`MAX_FIELD`].
    #[error("is longer than {MAX_FIELD} bytes")]
    TooLong,
    /// Would break lines of logs and tables.
    #[error("contains a control character")]
    ControlCharacter,
    /// Neither `tcp` nor `udp`.
    #[error("is neither tcp nor udp")]
    Network,
    /// Of a rule.
    #[error("is not a host name")]
    Host,
    /// Of a rule.
    #[error("is not a tunnel id, nor one behind a $")]
    Endpoint,
    /// See [`AddressError`].
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl<'a> Draft<'a> {
    /// The record that a Register means, an unusable host replaced by `reachable`.
    pub fn register(&self, reachable: &Host) -> Result<Record, FieldError> {
        self.check_bounds()?;
        self.identified()?;
        let network =
            Network::parse(self.network).map_err(|problem| FieldError { field: "network", problem })?;
        let entrypoint = Entrypoint::parse(self.address)
            .map_err(|e| FieldError { field: "address", problem: FieldProblem::Address(e) })?;
        Ok(Record {
            id: self.id.into(),
            name: self.name.into(),
            node: self.node.into(),
            network,
            address: entrypoint.completed(reachable),
        })
    }

    /// The draft, if it names a connector: all that Renew and Deregister need.
    pub fn identify(&self) -> Result<Draft<'a>, FieldError> {
        self.check_bounds()?;
        self.identified()?;
        Ok(*self)
    }

    fn identified(&self) -> Result<(), FieldError> {
        for (field, value) in [("id", self.id), ("name", self.name), ("node", self.node)] {
            if value.is_empty() {
                return Err(FieldError { field, problem: FieldProblem::Missing });
            }
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), FieldError> {
        let fields = [
            ("id", self.id),
            ("name", self.name),
            ("node", self.node),
            ("network", self.network),
            ("address", self.address),
        ];
        fields.into_iter().try_for_each(|(field, value)| check_field(field, value))
    }
}

/// A tunnel name to look up: present and within bounds.
pub fn check_name(name: &str) -> Result<&str, FieldError> {
    check_field("name", name)?;
    if name.is_empty() {
        return Err(FieldError { field: "name", problem: FieldProblem::Missing });
    }
    Ok(name)
}

/// Length and characters that every field keeps to.
pub fn check_field(field: &'static str, value: &str) -> Result<(), FieldError> {
    // Nearly every field is ASCII, of which many bytes are looked at at once.
    let has_control = || {
        if value.is_ascii() {
            value.bytes().fold(false, |found, byte| found | byte.is_ascii_control())
        } else {
            value.chars().any(char::is_control)
        }
    };
    let problem = if value.len() > MAX_FIELD {
        FieldProblem::TooLong
    } else if has_control() {
        FieldProblem::ControlCharacter
    } else {
        return Ok(());
    };
    Err(FieldError { field, problem })
}

impl Network {
    /// `tcp`, `udp`, or empty for `tcp`.
    pub fn parse(text: &str) -> Result<Self, FieldProblem> {
        match text {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(FieldProblem::Network),
        }
    }

    /// As gost spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// An agent's name: 1 to [`MAX_AGENT_NAME`] bytes of letters, digits, `-`, `.` and `_`.
#[derive(Clone, Debug, Eq, PartialOrd, Ord)]
pub struct AgentName(Arc<str>);

/// Most that are compared are the same one, and tables of a thousand are compared many times a second.
impl PartialEq for AgentName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Borrow<str> for AgentName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Hash for AgentName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A name that is no [`AgentName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an agent's name has 1 to {MAX_AGENT_NAME} letters, digits, '-', '.' and '_'")]
pub struct AgentNameError;

impl std::str::FromStr for AgentName {
    type Err = AgentNameError;

    fn from_str(text: &str) -> Result<Self, AgentNameError> {
        let fits = (1..=MAX_AGENT_NAME).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if fits && plain { Ok(Self(text.into())) } else { Err(AgentNameError) }
    }
}

impl AgentName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which start of an agent: every start has a higher one.
pub type Generation = u64;

/// One start of one agent, the writer of its records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The agent.
    pub name: AgentName,
    /// Which of its starts.
    pub generation: Generation,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Draft<'_> = Draft { id: "i", name: "t", node: "n", network: "tcp", address: ":80" };

    fn here() -> Host {
        Host::parse("10.0.0.1").unwrap()
    }

    #[test]
    fn an_empty_network_means_tcp() {
        let record = Draft { network: "", ..GOOD }.register(&here()).unwrap();
        assert_eq!((record.network, &*record.address.to_string()), (Network::Tcp, "10.0.0.1:80"));
    }

    #[test]
    fn a_refusal_names_the_field() {
        let long = "x".repeat(MAX_FIELD + 1);
        for (draft, want) in [
            (Draft { id: "", ..GOOD }, "id is missing"),
            (Draft { name: "", ..GOOD }, "name is missing"),
            (Draft { node: "", ..GOOD }, "node is missing"),
            (Draft { network: "sctp", ..GOOD }, "network is neither tcp nor udp"),
            (Draft { address: ":0", ..GOOD }, "address has port 0: give gost's `entrypoint` a fixed port"),
            (Draft { node: &long, ..GOOD }, "node is longer than 512 bytes"),
            (Draft { id: "a\nb", ..GOOD }, "id contains a control character"),
        ] {
            assert_eq!(draft.register(&here()).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn renew_needs_no_address() {
        assert!(Draft { network: "", address: "", ..GOOD }.identify().is_ok());
        assert!(Draft { node: "", ..GOOD }.identify().is_err());
    }

    #[test]
    fn agent_names_are_short_and_plain() {
        for good in ["a", "host-1.example.org", &"x".repeat(64)] {
            assert!(good.parse::<AgentName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "ü", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<AgentName>().is_err(), "{bad}");
        }
    }
}
