#!/usr/bin/env bash
# Checks that every crate in Cargo.lock comes from crates.io, has a licence that .deny.toml allows, and has one version; and,
# if the advisory database can be fetched from github.com, that no crate has a known weakness.
#
#   scripts/supply.sh
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=0.20.2

if ! cargo deny --version >/dev/null 2>&1; then
  echo "supply.sh: installing cargo-deny $VERSION, once (some minutes of processor time)" >&2
  # Not in gossd's target folder, whose cache would keep the leftovers. Without optimisation, which would take longer than it
  # saves: cargo-deny reads one lock file.
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
  echo 'SKIPPED: the advisories cannot be fetched; known weaknesses of crates were not checked' >&2
fi
