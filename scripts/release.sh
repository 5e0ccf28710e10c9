#!/usr/bin/env bash
# Makes what a release has: the static program, its debug information, the Debian package, a list of all crates in them, and sums. The package is
# built twice, in two folders, and has to be the same both times, to the byte. Prints the folder that all is in.
#
#   scripts/release.sh [FLAGS OF cargo build; --release]
set -euo pipefail
cd "$(dirname "$0")/.."

CYCLONEDX=0.5.9

fail() { echo "release.sh: $*" >&2; exit 1; }
git diff --quiet HEAD || fail 'there are changes that are not committed: what is built is the last commit'
if ! cargo cyclonedx --version >/dev/null 2>&1; then
  echo "release.sh: installing cargo-cyclonedx $CYCLONEDX, once" >&2
  env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo install cargo-cyclonedx --version "$CYCLONEDX" --locked --quiet
fi
scripts/supply.sh >&2

# What is in the package has this time, not that of the building.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

build() { # FOLDER FLAGS...: the last commit's package, built there from nothing
  mkdir -p "$1"
  git archive HEAD | tar -x -C "$1"
  CARGO_TARGET_DIR=$1/target "$1/scripts/deb.sh" "${@:2}"
}

first=$(build "$place/first" "$@")
# Only one of two at a time, so that a small machine has room for it.
mkdir "$place/kept"
cp "$first" "$place/kept/"
first=$place/kept/${first##*/}
rm -rf "$place/first/target"
second=$(build "$place/elsewhere/second" "$@")
cmp "$first" "$second" >&2 || fail "the same sources made two packages: $(sha256sum "$first" "$second")"

out=${CARGO_TARGET_DIR:-target}/release-files
rm -rf "$out"
mkdir -p "$out"
cp "$second" "${second%/*}/gossd.debug" "$out/"
dpkg-deb --fsys-tarfile "$second" | tar -x -O ./usr/bin/gossd >"$out/gossd"
chmod 755 "$out/gossd"
# Of the program's crates and those that build it; not of those that test it.
(cd "$place/elsewhere/second" &&
  cargo cyclonedx --format json --target "$(rustc -vV | sed -n 's/^host: //p')" --override-filename gossd.cdx --quiet >&2)
sed "s|$place/elsewhere/second|/gossd|g" "$place/elsewhere/second/gossd.cdx.json" >"$out/gossd.cdx.json"
(cd "$out" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS >&2)
echo "$out"
