//! Keys and tokens of a world's agents, in files that only they can read.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{World, make_open};

/// Keys for all.
pub(crate) const KEYS: [&str; 2] =
    ["b25seS1mb3ItdGVzdHMtb2YtZ29zc2Qta2V5LTAwMDE=", "b25seS1mb3ItdGVzdHMtb2YtZ29zc2Qta2V5LTAwMDI="];
/// The token of gosts, for agents that require one.
pub(super) const TOKEN: &str = "only-for-tests-of-gossd";

impl World {
    /// Sets the keys of hosts that start from now on; the first key encrypts.
    pub(crate) fn write_keys(&self, keys: &[&str]) -> anyhow::Result<()> {
        write_keys(&self.folder.join("keys"), keys)
    }

    /// Gives one host a key file of its own.
    pub(crate) fn write_keys_of(&self, name: &str, keys: &[&str]) -> anyhow::Result<()> {
        write_keys(&self.folder.join(format!("{name}-keys")), keys)
    }

    /// Puts a new key beside a host's own key file.
    pub(crate) fn write_new_key(&self, name: &str, key: &str) -> anyhow::Result<()> {
        write_secret(&self.keys_of(name).join("new"), key)
    }

    /// The keys in the key file of such a host, without comments.
    pub(crate) fn read_keys_of(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(self.keys_of(name).join("keys"))?;
        Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
    }

    /// The folder of a host's `keys` and `token`.
    pub(super) fn keys_of(&self, name: &str) -> PathBuf {
        let own = self.folder.join(format!("{name}-keys"));
        if own.exists() { own } else { self.folder.join("keys") }
    }
}

fn write_keys(folder: &Path, keys: &[&str]) -> anyhow::Result<()> {
    make_open(folder)?;
    write_secret(&folder.join("token"), TOKEN)?;
    write_secret(&folder.join("keys"), &(keys.join("\n") + "\n"))
}

/// Writes a file for our group only; the agents are members of it.
fn write_secret(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, "").and_then(|()| std::fs::set_permissions(file, Permissions::from_mode(0o660)))?;
    std::fs::write(file, text).context("a secret")
}
