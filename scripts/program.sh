#!/usr/bin/env bash
# Builds gossd as a release has it: static, and the same to the byte whatever the folder. Prints the path of the program,
# which still has its source lines for stack traces; scripts/tree.sh keeps them in a file of their own.
#
#   scripts/program.sh [FLAGS OF cargo build; --release]
#
# GOSSD_TARGET is the target, by default this machine's. Releases are built for x86_64-unknown-linux-musl and
# aarch64-unknown-linux-musl, each on a machine of its kind (rustup target add; Debian: apt-get install musl-tools).
set -euo pipefail
cd "$(dirname "$0")/.."

(($#)) || set -- --release

# With an explicit target, procedural macros, which the compiler loads, stay dynamic. The program does not contain the path
# of its build, so that it is the same for every path.
target=${GOSSD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
built=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
flags=''
# Packed relocations, which Rust's musl applies since Rust 1.93: before, a program with them does not start.
[[ $target != *-musl || $(rustc -vV | sed -n 's/^release: 1\.\([0-9]*\).*/\1/p') -lt 93 ]] ||
  flags+=' -C link-arg=-Wl,-z,pack-relative-relocs'
# The profile `small` ends at a panic. Without the tables for unwinding, the program is a quarter smaller.
[[ " $* " != *[\ =]small\ * ]] || flags+=" -C link-arg=-Wl,-T,$PWD/scripts/no-unwinding.ld"
remap=("$PWD=/gossd" "$sources=/crates" "$built=/built")
CFLAGS="${CFLAGS:-} ${remap[*]/#/-ffile-prefix-map=}" \
  RUSTFLAGS="-C target-feature=+crt-static${flags} ${remap[*]/#/--remap-path-prefix=}" \
  CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none \
  cargo build --locked --quiet --target "$target" --bin gossd --message-format json-render-diagnostics "$@" |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
