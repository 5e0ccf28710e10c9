#!/usr/bin/env bash
# The tests in containers: three or more tunnel hosts, broken in every way that crates/harness knows. They need a Docker
# engine, but no registry and no other image: everything is built here, from this tree and this machine's iptables.
# gost is simulated, unless --gost or GOSSD_GOST names the program of a real one (static: its image has nothing else).
#
#   scripts/docker-test.sh [--set short|long|NAME[/grpc|/http],...] [--repeat N] [--jobs N] [--list] [--table FILE]
#                          [--noticed] [--mesh AGENTS] [--bystanders HOSTS] [--gost FILE] [--gossd FILE]
#
# GOSSD_TEST_TAG is the tag of the images, for several trees that share an engine.
set -euo pipefail
# Relative paths count from the caller's folder.
here=$PWD
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

fail() { echo "docker-test.sh: $*" >&2; exit 1; }
if ! docker version >/dev/null 2>&1; then
  fail 'no Docker engine answers (Debian: apt-get install docker.io; then `docker version` has to work)'
fi
if ! command -v iptables >/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail 'iptables is missing (Debian: apt-get install iptables)'
  apt-get update -qq && apt-get install -y -qq iptables
fi

tag=${GOSSD_TEST_TAG:-latest}
built=$(scripts/static.sh)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

# Builds an image from a folder and the Dockerfile on standard input, and replaces the one of the same name.
image() {
  local old new
  old=$(docker images --quiet --no-trunc "$1:$tag")
  docker build --tag "$1:$tag" --file - "$context/$1" >"$context/log" 2>&1 || { cat "$context/log" >&2; fail "no image $1"; }
  new=$(docker images --quiet --no-trunc "$1:$tag")
  if [ -n "$old" ] && [ "$old" != "$new" ]; then docker rmi "$old" >/dev/null 2>&1 || true; fi
}

# The last stage of the users' Dockerfile with the program from above; a gost to play; and an agent that can be broken on
# purpose.
mkdir -p "$context"/gossd-harness/{out/data,more/tmp}
chmod 1777 "$context/gossd-harness/more/tmp"
cp "$built/gossd" "$context/gossd-harness/out/"
cp "$built/fakegost" "$built/gossd-lab" "$context/gossd-harness/more/"
{
  sed -n '/^FROM scratch$/,$ { s/ --from=build / /; s/$TARGETARCH.//; p }' Dockerfile
  echo 'COPY more /'
  echo 'ENTRYPOINT []'
} | image gossd-harness

# This machine's iptables with everything that it loads, for faults in a network namespace.
extensions=$(find /usr/lib* -name 'libxt_NFQUEUE.so' -printf '%h\n' -quit)
[ -d "$extensions" ] || fail 'no folder of iptables extensions below /usr/lib'
mkdir -p "$context/gossd-tools/"{run,tmp,usr/sbin}
cp "$built/fakegost" "$context/gossd-tools/"
cp --dereference "$(command -v iptables)" "$context/gossd-tools/usr/sbin/iptables"
ldd "$(command -v iptables)" "$extensions"/*.so | awk '/\(0x/ && $(NF-1) ~ /^\// { print $(NF-1) }' | sort --unique |
  xargs cp --parents --dereference --target-directory "$context/gossd-tools" "$extensions"/*.so
image gossd-tools <<'END'
FROM scratch
COPY . /
ENV PATH=/usr/sbin
END

arguments=("$@")
for ((at = 1; at < ${#arguments[@]}; at++)); do
  case ${arguments[at - 1]} in --gost | --gossd | --table) arguments[at]=$(cd "$here" && realpath -m "${arguments[at]}") ;; esac
done
[ -z "${GOSSD_GOST:-}" ] || { GOSSD_GOST=$(cd "$here" && realpath -m "$GOSSD_GOST") && export GOSSD_GOST; }
for argument in "$@"; do case $argument in --set | --list) set_given=1 ;; esac done
[ -n "${set_given:-}" ] || arguments+=(--set long --repeat 3)
"$built/scenarios" --folder "${CARGO_TARGET_DIR:-target}/scenarios" "${arguments[@]}"
