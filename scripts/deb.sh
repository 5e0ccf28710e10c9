#!/usr/bin/env bash
# Packs gossd for Debian and its derivatives: one static program, so that it runs on any of their releases. Prints the path
# of the package; beside it is gossd.debug, with the source lines for stack traces.
#
#   scripts/deb.sh [--program FILE | FLAGS OF cargo build; --release]
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "deb.sh: $*" >&2; exit 1; }
command -v dpkg-deb >/dev/null || fail 'dpkg-deb is missing: this needs Debian, or its dpkg'
command -v objcopy >/dev/null || fail 'objcopy is missing (Debian: apt-get install binutils)'
(($#)) || set -- --release

# With an explicit target, procedural macros, which the compiler loads, stay dynamic. The program does not contain the path
# of its build, so that it is the same for every path.
build() { # FLAGS OF cargo build: prints the program
  local target sources built remap
  target=$(rustc -vV | sed -n 's/^host: //p')
  sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
  built=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
  remap=("$PWD=/gossd" "$sources=/crates" "$built=/built")
  CFLAGS="${CFLAGS:-} ${remap[*]/#/-ffile-prefix-map=}" \
    RUSTFLAGS="-C target-feature=+crt-static ${remap[*]/#/--remap-path-prefix=}" \
    CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none \
    cargo build --locked --quiet --target "$target" --bin gossd --message-format json-render-diagnostics "$@" |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}
case $1 in
  --program) program=$2 ;;
  *) program=$(build "$@") ;;
esac
[ -x "$program" ] || fail 'there is no program to pack'

# The same sources make the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
version=$(sed -n '/^\[package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml | sed 's/-/~/')-1
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-gossd contributors} <${DEBEMAIL:-gossd@example.org}>"

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
umask 022
put() { install -D --mode "$1" "$2" "$tree/$3"; }
# The same from standard input, compressed without a timestamp.
zip() { mkdir -p "$tree/${1%/*}"; gzip --best --no-name >"$tree/$1.gz"; }

out=${CARGO_TARGET_DIR:-target}/debian
mkdir -p "$out"
put 755 "$program" usr/bin/gossd
# A stack trace still names functions. Their source lines would be four fifths of the program.
objcopy --only-keep-debug --compress-debug-sections "$program" "$out/gossd.debug"
objcopy --strip-debug --add-gnu-debuglink="$out/gossd.debug" "$tree/usr/bin/gossd"
put 644 examples/systemd/gossd.service lib/systemd/system/gossd.service
put 644 examples/systemd/gossd.toml etc/gossd/gossd.toml
for completions in bash:usr/share/bash-completion/completions/gossd zsh:usr/share/zsh/vendor-completions/_gossd \
  fish:usr/share/fish/vendor_completions.d/gossd.fish; do
  "$program" completions "${completions%%:*}" | put 644 /dev/stdin "${completions#*:}"
done
"$program" man --dir "$tree/usr/share/man/man1"
gzip --best --no-name "$tree"/usr/share/man/man1/*

doc=usr/share/doc/gossd
for page in README.md README.zh-CN.md SECURITY.md docs/*.md docs/*.png docs/zh-CN/*.md; do
  put 644 "$page" "$doc/$page"
done
zip $doc/changelog <CHANGELOG.md
zip $doc/changelog.Debian <<END
gossd ($version) unstable; urgency=medium

  * Version ${version%-*}. What it brings is in changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
END
{
  printf 'gossd is licensed under either of the MIT license and the Apache License, version 2.0, at your option.\n'
  printf 'The latter is in /usr/share/common-licenses/Apache-2.0. The former:\n\n'
  cat LICENSE-MIT
} | put 644 /dev/stdin $doc/copyright

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
