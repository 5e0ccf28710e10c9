#!/usr/bin/env bash
# An accelerated week of agents and gosts, in half an hour: see crates/lab/src/soak.
#
#   scripts/soak.sh [--minutes N] [FLAGS OF THE VERB]
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --locked --quiet --release --package gossd-lab --bin gossd-lab -- soak "$@"
