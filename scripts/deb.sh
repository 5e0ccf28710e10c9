#!/usr/bin/env bash
# Packs gossd for Debian and its derivatives: one static program, so that it runs on any of their releases. Prints the path
# of the package; beside it is gossd.debug, with the source lines for stack traces.
#
#   scripts/deb.sh [--program FILE | FLAGS OF cargo build; --release]
#
# GOSSD_TARGET is the program's target, as in scripts/program.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "deb.sh: $*" >&2; exit 1; }
command -v dpkg-deb >/dev/null || fail 'dpkg-deb is missing: this needs Debian, or its dpkg'
case ${1:-} in
  --program) program=$2 ;;
  *) program=$(scripts/program.sh "$@") ;;
esac

# The same sources make the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
version=$(sed -n '/^\[package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml | sed 's/-/~/')-1
case ${GOSSD_TARGET:-} in
  x86_64-*) architecture=amd64 ;;
  aarch64-*) architecture=arm64 ;;
  *) architecture=$(dpkg --print-architecture) ;;
esac
maintainer="${DEBFULLNAME:-gossd contributors} <${DEBEMAIL:-gossd@example.org}>"

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
scripts/tree.sh "$tree" "$program"

umask 022
out=${CARGO_TARGET_DIR:-target}/packages
doc=usr/share/doc/gossd
# A file from standard input, compressed without a timestamp.
zip() { gzip --best --no-name >"$tree/$1.gz"; }
zip $doc/changelog <CHANGELOG.md
zip $doc/changelog.Debian <<END
gossd ($version) unstable; urgency=medium

  * Version ${version%-*}. What it brings is in changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
END
{
  printf 'gossd is licensed under either of the MIT license and the Apache License, version 2.0, at your option.\n'
  printf 'The public suffix list in it (https://publicsuffix.org) is under the Mozilla Public License 2.0.\n'
  printf 'The latter is in /usr/share/common-licenses/Apache-2.0. The former:\n\n'
  cat LICENSE-MIT
} >"$tree/$doc/copyright"

mkdir "$tree/DEBIAN"
install --mode 755 scripts/debian/{postinst,prerm,postrm} "$tree/DEBIAN/"
echo /etc/gossd/gossd.toml >"$tree/DEBIAN/conffiles"
size=$(du --summarize --apparent-size --block-size 1K --exclude DEBIAN "$tree" | cut -f1)
sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@MAINTAINER@/$maintainer/; s/@SIZE@/$size/" \
  scripts/debian/control.in >"$tree/DEBIAN/control"
(cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort --zero-terminated | xargs -0 md5sum) \
  >"$tree/DEBIAN/md5sums"

dpkg-deb --root-owner-group --build "$tree" "$out/gossd_${version}_$architecture.deb" >&2
echo "$out/gossd_${version}_$architecture.deb"
