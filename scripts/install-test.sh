#!/usr/bin/env bash
# scripts/install.sh from a release on this machine's loopback address: it installs the program that the list names, and
# nothing if a file is another.
#
#   scripts/install-test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "install-test.sh: $*" >&2; exit 1; }
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
machine=$(uname -m)
mkdir "$work/files" "$work/bin"
printf '#!/bin/sh\necho gossd 9.9.9\n' >"$work/files/gossd-$machine"
printf '#!/bin/sh\necho small\n' >"$work/files/gossd-small-$machine"
cp "$work/files/gossd-$machine" "$work/files/gossd_9.9.9-1_any.deb"
list() { (cd "$work/files" && sha256sum gossd* >"SHA256SUMS-$machine"); }
list
python3 -u -m http.server --directory "$work/files" --bind 127.0.0.1 0 >"$work/log" 2>&1 &
server=$!
until port=$(sed -n 's/.*port \([0-9]*\) .*/\1/p' "$work/log") && [ -n "$port" ]; do sleep 0.1; done

# As in the manual: from standard input, with the address that scripts/release.sh writes into it.
install() { # [KIND]
  sed "s|@RELEASE@|http://127.0.0.1:$port|" scripts/install.sh | GOSSD_TO=$work/bin sh -s -- "$@" >"$work/said" 2>&1
}
refused() { # WORDS KIND...
  if install "${@:2}"; then fail "it installed ${*:2}: $1"; fi
  grep --quiet --fixed-strings "$1" "$work/said" || fail "it does not say '$1', but: $(cat "$work/said")"
}
install || fail "$(cat "$work/said")"
[ "$("$work/bin/gossd")" = 'gossd 9.9.9' ] && [ "$(cat "$work/said")" = 'gossd 9.9.9' ] || fail 'another program'
install small || fail "$(cat "$work/said")"
[ "$("$work/bin/gossd")" = small ] || fail 'another program'
refused 'the release has no rpm' rpm
refused 'usage:' everything

echo '# changed' >>"$work/files/gossd-$machine"
refused 'is not the file that the release lists: nothing was installed'
echo '# changed' >>"$work/files/gossd_9.9.9-1_any.deb"
refused 'is not the file that the release lists: nothing was installed' deb
[ "$("$work/bin/gossd")" = small ] || fail 'it was replaced'
sed --in-place "s/  gossd-$machine\$/  ..\/gossd-$machine/" "$work/files/SHA256SUMS-$machine"
refused "the release has no program for $machine"
rm "$work/files/SHA256SUMS-$machine"
refused 'there is no list of checksums'
[ "$(find "$work/bin" -type f | wc -l)" = 1 ] || fail "left over: $(ls -A "$work/bin")"
if GOSSD_RELEASE='' sh scripts/install.sh >"$work/said" 2>&1; then fail 'it has no address'; fi
grep --quiet GOSSD_RELEASE "$work/said" || fail "$(cat "$work/said")"
echo 'the installer installs what the release lists, and nothing else'
