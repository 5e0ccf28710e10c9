#!/usr/bin/env bash
# Makes the files of a release: the static program, its debug information, the Debian package, a list of all their crates, and
# checksums. The package is built twice, in two folders, and both have to be identical to the byte. Prints the folder.
#
#   scripts/release.sh [FLAGS OF cargo build; --release]
set -euo pipefail
cd "$(dirname "$0")/.."

CYCLONEDX=0.5.9

fail() { echo "release.sh: $*" >&2; exit 1; }
git diff --quiet HEAD || fail 'there are uncommitted changes, but the last commit is what is built'
if ! cargo cyclonedx --version >/dev/null 2>&1; then
  echo "release.sh: installing cargo-cyclonedx $CYCLONEDX, once" >&2
  env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo install cargo-cyclonedx --version "$CYCLONEDX" --locked --quiet
fi
scripts/supply.sh >&2

# Files in the package have the time of the commit, not that of the build.
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
# One build folder at a time, so that a small machine has room for it.
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
# The crates of the program and its build, without those of the tests.
(cd "$place/elsewhere/second" &&
  cargo cyclonedx --format json --target "$(rustc -vV | sed -n 's/^host: //p')" --override-filename gossd.cdx --quiet >&2)
sed "s|$place/elsewhere/second|/gossd|g" "$place/elsewhere/second/gossd.cdx.json" >"$out/gossd.cdx.json"
(cd "$out" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS >&2)
echo "$out"
