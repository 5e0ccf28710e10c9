//! The admin listener: read-only answers about this agent for operators, probes and metrics. It changes nothing,
//! and no plugin call waits for it.

pub mod report;
