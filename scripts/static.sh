#!/usr/bin/env bash
# Builds the programs that the checks run: gossd, the simulated gost, the scenarios and the measuring programs, optimised a
# little, and static, so that they run in an image with nothing else. Prints their folder.
#
#   scripts/static.sh
#
# GOSSD_TARGET is the target, by default this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."

# With an explicit target, procedural macros, which the compiler loads, stay dynamic. One command for all, so that each crate
# is built once with all the features that are needed.
target=${GOSSD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --quiet --profile harness --target "$target" \
  --package gossd --package gossd-harness --package gossd-lab --bins >&2
echo "${CARGO_TARGET_DIR:-target}/$target/harness"
