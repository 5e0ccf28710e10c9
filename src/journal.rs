//! STUB
#![allow(missing_docs)]
use crate::domain::record::{AgentName, Generation, Record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub record: Arc<Record>,
    pub dial: Arc<str>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Held(Held),
    Released,
    Forgotten,
}
pub type Batch = BTreeMap<Arc<str>, Entry>;
pub struct Restored {
    pub generation: Generation,
    pub held: Vec<Held>,
    pub released: Vec<Arc<str>>,
    pub set_aside: Option<PathBuf>,
}
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("locked")]
    Locked { path: PathBuf },
    #[error("unusable")]
    Unusable { path: PathBuf, source: std::io::Error },
}
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("afresh")]
    StartedAfresh { set_aside: PathBuf },
}
pub struct Journal;
impl Journal {
    pub fn open(_: &Path, _: &AgentName, at_least: Generation) -> Result<(Self, Restored), OpenError> {
        Ok((Self, Restored { generation: at_least, held: vec![], released: vec![], set_aside: None }))
    }
    pub fn write(&mut self, _: &Batch) -> Result<(), WriteError> {
        Ok(())
    }
}
