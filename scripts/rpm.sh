#!/usr/bin/env bash
# Packs gossd for Fedora, RHEL, openSUSE and their like, from the same files as scripts/deb.sh. Prints the path of the package,
# after a look into it.
#
#   scripts/rpm.sh [--program FILE | FLAGS OF cargo build; --release]
#
# GOSSD_TARGET is the program's target, as in scripts/program.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "rpm.sh: $*" >&2; exit 1; }
if ! command -v rpmbuild >/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail 'rpmbuild is missing (Debian: apt-get install rpm)'
  apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends rpm >&2
fi
case ${1:-} in
  --program) program=$2 ;;
  *) program=$(scripts/program.sh "$@") ;;
esac

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
version=$(sed -n '/^\[package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml | sed 's/-/~/')
architecture=${GOSSD_TARGET:-$(uname -m)}
architecture=${architecture%%-*}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
scripts/tree.sh "$tree" "$program"
mkdir -p "$tree/usr/lib" "$tree/usr/share/zsh/site-functions"
mv "$tree/lib/systemd" "$tree/usr/lib/" && rmdir "$tree/lib"
mv "$tree/usr/share/zsh/vendor-completions/_gossd" "$tree/usr/share/zsh/site-functions/"
rmdir "$tree/usr/share/zsh/vendor-completions"
install -D --mode 644 --target-directory "$tree/usr/share/licenses/gossd" LICENSE-MIT LICENSE-APACHE
sed "s|@VERSION@|$version|; s|@ARCHITECTURE@|$architecture|; s|@TREE@|$tree|" scripts/rpm/gossd.spec >"$work/gossd.spec"

# The same sources make the same package: no host, no time, and files as they are. xz is what every rpm can read.
out=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}/packages")
rpmbuild -bb --quiet --target "$architecture-linux" \
  --define "_topdir $work/rpm" --define "_rpmdir $work/made" --define '_build_id_links none' --define '_buildhost gossd' \
  --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' \
  --define '__os_install_post %{nil}' --define 'debug_package %{nil}' --define '_binary_payload w6.xzdio' \
  --define '_docdir /usr/share/doc' "$work/gossd.spec" >&2
package=gossd-$version-1.$architecture.rpm
mkdir -p "$out"
cp "$work/made/$architecture/$package" "$out/"

# Its digests are right, and it has what the Debian package has, where these systems look for it.
# (What a command prints is read to its end: one whose reader leaves early dies of SIGPIPE, and pipefail calls that a failure.)
rpm --checksig --verbose "$out/$package" | grep 'Payload SHA256 digest: OK' >&2 || fail "wrong digests: $out/$package"
diff <(rpm --query --list --package "$out/$package" | sort) \
  <(cd "$tree" && find . -not -type d -printf '/%P\n' -o -path './usr/share/doc/gossd*' -printf '/%P\n' \
    -o -path ./usr/share/licenses/gossd -printf '/%P\n' | sort) >&2 || fail 'other files than were laid out'
[ "$(rpm --query --configfiles --package "$out/$package")" = /etc/gossd/gossd.toml ] || fail 'no configuration file'
rpm --query --requires --package "$out/$package" | grep '\.so' >&2 && fail 'it needs a library'
echo "$out/$package"
