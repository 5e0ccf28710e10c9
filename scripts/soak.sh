#!/usr/bin/env bash
# An accelerated week of agents and gosts, in half an hour: see examples/soak.
#
#   scripts/soak.sh [--minutes N] [FLAGS OF THE EXAMPLE]
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --locked --quiet --release --example soak -- "$@"
