#!/bin/sh
# Installs gossd from its releases, and nothing whose SHA-256 is another than the release's list says.
#
#   install.sh [program|small|deb|rpm]
#
# By default the program alone, to GOSSD_TO or /usr/local/bin; `small` is for small machines; `deb` and `rpm` are the packages,
# with a service. GOSSD_RELEASE is the address of the files, by default that of the release that this file is from.
set -eu

fail() { echo "install.sh: $*" >&2; exit 1; }
# scripts/release.sh writes the address here.
release=${GOSSD_RELEASE:-'@RELEASE@'}
case $release in '' | @*) false ;; esac || fail 'set GOSSD_RELEASE to the address of the files of a release'
case $(uname -s) in Linux) ;; *) fail 'gossd runs on Linux' ;; esac
machine=$(uname -m)
case $machine in
  x86_64 | aarch64) ;;
  arm64) machine=aarch64 ;;
  *) fail "there is no program for $machine: build it, with Rust and \`cargo install --locked --path .\`" ;;
esac
if command -v curl >/dev/null; then get() { curl --fail --silent --show-error --location --output "$2" "$1"; }
elif command -v wget >/dev/null; then get() { wget -q -O "$2" "$1"; }
else fail 'curl and wget are missing'; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
get "$release/SHA256SUMS-$machine" sums || fail "there is no list of checksums at $release"
case ${1:-program} in
  program) pattern="gossd-$machine" ;;
  small) pattern="gossd-small-$machine" ;;
  deb) pattern='gossd_[^ ]*[.]deb' ;;
  rpm) pattern="gossd-[^ ]*[.]rpm" ;;
  *) fail 'usage: install.sh [program|small|deb|rpm]' ;;
esac
# Two words a line: a checksum and a name, which has no folder in it.
sed -n "s/^\([0-9a-f]\{64\}\) [ *]\($pattern\)\$/\1  \2/p" sums >wanted
[ "$(wc -l <wanted)" -eq 1 ] || fail "the release has no ${1:-program} for $machine"
file=$(sed 's/^[0-9a-f]*  //' wanted)
get "$release/$file" "$file" || fail "there is no $file at $release"
sha256sum -c wanted >/dev/null 2>&1 || fail "$file is not the file that the release lists: nothing was installed"

case ${1:-program} in
  deb) chmod 755 . && apt-get install -y "./$file" ;;
  rpm) if command -v dnf >/dev/null; then dnf install -y "./$file"; else rpm --upgrade "$file"; fi ;;
  *)
    to=${GOSSD_TO:-/usr/local/bin}
    # Beside the old one first: a program that runs cannot be written to, but its name can be given to another.
    { mkdir -p "$to" && cp "$file" "$to/.gossd.new" && chmod 755 "$to/.gossd.new" && mv "$to/.gossd.new" "$to/gossd"; } ||
      fail "$to cannot be written to: be root, or set GOSSD_TO to another folder"
    "$to/gossd" --version
    ;;
esac
