#!/usr/bin/env bash
# Whether all that Cargo.lock brings is from crates.io, under licences that .deny.toml allows, and in one version each;
# and, where the advisories' database can be fetched from github.com, whether any of it is known to be weak.
#
#   scripts/supply.sh
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=0.20.2

if ! cargo deny --version >/dev/null 2>&1; then
  echo "supply.sh: installing cargo-deny $VERSION, once (some minutes of processor time)" >&2
  # Not where gossd is built: a cache of that would keep its leftovers. Without optimisation, which takes longer than it
  # saves: it reads one lock file.
  env -u CARGO_TARGET_DIR -u RUSTFLAGS CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install cargo-deny --version "$VERSION" --locked --quiet --debug
fi
cargo deny --locked --all-features check licenses sources bans

if cargo deny --locked fetch db >/dev/null 2>&1; then
  cargo deny --locked --all-features check --disable-fetch advisories
elif [ "${GOSSD_REQUIRE_ADVISORIES:-}" = 1 ]; then
  echo 'supply.sh: the advisories cannot be fetched, and GOSSD_REQUIRE_ADVISORIES=1' >&2
  exit 1
else
  echo 'SKIPPED: the advisories cannot be fetched; nothing has shown that no crate is known to be weak' >&2
fi
