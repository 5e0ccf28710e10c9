#!/usr/bin/env bash
# Builds what the checks run: gossd, the simulated gost, the scenarios and the measuring programs, optimised a little, and
# static, so that they run in an image with nothing else. Prints the folder that they are in.
#
#   scripts/static.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# Naming the target keeps procedural macros, which the compiler loads, dynamic. All in one go, so that each crate is built
# once, whoever needs which of its features.
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --quiet --profile harness --target "$target" \
  --package gossd --package gossd-harness --package gossd-lab --bins >&2
echo "${CARGO_TARGET_DIR:-target}/$target/harness"
