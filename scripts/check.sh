#!/usr/bin/env bash
# Everything that has to hold before a change lands; CI runs just this. Needs Rust, a C compiler and curl.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  local started=$SECONDS
  printf '\n== %s\n' "$*"
  "$@"
  printf '== done in %s s\n' $((SECONDS - started))
}

missing=()
for tool in cargo cc curl; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if ((${#missing[@]})) && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  case " ${missing[*]} " in *' cargo '*) echo "cargo is missing: install Rust first" >&2; exit 1 ;; esac
  step apt-get update -qq
  step apt-get install -y -qq build-essential curl
elif ((${#missing[@]})); then
  echo "missing: ${missing[*]} (on Debian: apt-get install build-essential curl, and Rust)" >&2
  exit 1
fi

# Fast: seconds once built.
step cargo fmt --check
step cargo clippy --locked --all-targets --quiet -- -D warnings
step cargo test --locked --quiet --lib
# Slower: agents in one process and programs of their own, through real sockets; two at a time, because they
# measure what is promised.
step cargo test --locked --quiet --test '*' -- --test-threads 2
step env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
# The measuring programs still work; the figures of such a short run mean nothing.
step cargo run --locked --quiet --example propagation -- --agents 3 --changes 10
step cargo run --locked --quiet --example newcomer -- --records 2000
printf '\nall checks passed in %s s\n' "$SECONDS"
