#!/usr/bin/env bash
# Makes the files of a release for one target: the static program, a small one, their packages for Debian and for rpm, debug
# information, a list of all crates, an installer, and checksums. The packages are built twice, in two folders, and have to be
# identical to the byte. Prints the folder.
#
#   scripts/release.sh [FLAGS OF cargo build; --release]
#
# GOSSD_TARGET is the target, by default this machine's; see scripts/program.sh. GOSSD_HOME is the address of the repository
# from whose release the installer takes its files; by default `repository` of Cargo.toml, if it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

CYCLONEDX=0.5.9

fail() { echo "release.sh: $*" >&2; exit 1; }
git diff --quiet HEAD || fail 'there are uncommitted changes, but the last commit is what is built'
if ! cargo cyclonedx --version >/dev/null 2>&1; then
  echo "release.sh: installing cargo-cyclonedx $CYCLONEDX, once" >&2
  env -u CARGO_TARGET_DIR -u RUSTFLAGS -u GOSSD_TARGET cargo install cargo-cyclonedx --version "$CYCLONEDX" --locked --quiet
fi
scripts/supply.sh >&2

# Files in the packages have the time of the commit, not that of the build.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
GOSSD_TARGET=${GOSSD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
export GOSSD_TARGET
machine=${GOSSD_TARGET%%-*}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

build() { # FOLDER FLAGS...: the last commit's packages and programs, built there from nothing, in FOLDER/made
  local program
  mkdir -p "$1/made"
  git archive HEAD | tar -x -C "$1"
  export CARGO_TARGET_DIR=$1/target
  program=$("$1/scripts/program.sh" "${@:2}")
  "$1/scripts/deb.sh" --program "$program" >/dev/null
  "$1/scripts/rpm.sh" --program "$program" >/dev/null
  cp "$CARGO_TARGET_DIR"/packages/* "$1/made/"
  program=$("$1/scripts/program.sh" --profile small --no-default-features)
  cp "$program" "$1/made/gossd-small-$machine"
  # One build folder at a time, so that a small machine has room for it.
  rm -rf "$CARGO_TARGET_DIR"
}

(build "$place/first" "$@")
(build "$place/elsewhere/second" "$@")
for made in "$place"/first/made/*; do
  cmp "$made" "$place/elsewhere/second/made/${made##*/}" >&2 || fail "the same sources made two files ${made##*/}"
done

out=${CARGO_TARGET_DIR:-target}/release-files
rm -rf "$out"
mkdir -p "$out"
out=$(realpath "$out")
cp "$place"/first/made/* "$out/"
mv "$out/gossd.debug" "$out/gossd-$machine.debug"
dpkg-deb --fsys-tarfile "$out"/gossd_*.deb | tar -x -O ./usr/bin/gossd >"$out/gossd-$machine"
chmod 755 "$out/gossd-$machine"
# The crates of the program and its build, without those of the tests.
(cd "$place/elsewhere/second" &&
  cargo cyclonedx --format json --target "$GOSSD_TARGET" --override-filename gossd.cdx --quiet >&2)
sed "s|$place/elsewhere/second|/gossd|g" "$place/elsewhere/second/gossd.cdx.json" >"$out/gossd-$machine.cdx.json"
repository=${GOSSD_HOME:-$(sed -n 's/^repository = "\(.*\)"/\1/p' Cargo.toml)}
version=$(sed -n '/^\[package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
sed "s|@RELEASE@|${repository:+$repository/releases/download/v$version}|" scripts/install.sh >"$out/install.sh"
(cd "$out" && sha256sum -- * >"SHA256SUMS-$machine" && cat "SHA256SUMS-$machine" >&2)
echo "$out"
