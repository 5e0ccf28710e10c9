#!/usr/bin/env bash
# Installs the Debian package on a machine with systemd, uses it, upgrades it and purges it. Then installs it on three
# machines, breaks their cluster, and finds the cause as a new user would. The machines are containers made of Debian's
# packages; this needs root, a Docker engine and mmdebstrap, but no registry of images.
#
#   scripts/deb-test.sh [PACKAGE]
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=adduser,curl,systemd,systemd-sysv

fail() { echo "deb-test.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail 'it has to run as root'
docker version >/dev/null 2>&1 ||
  fail 'no Docker engine answers (Debian: apt-get install docker.io; then `docker version` has to work)'
if ! command -v mmdebstrap >/dev/null; then
  command -v apt-get >/dev/null || fail 'mmdebstrap is missing (Debian: apt-get install mmdebstrap)'
  apt-get update -qq && apt-get install -y -qq mmdebstrap
fi

package=${1:-$(scripts/deb.sh --program "$(scripts/static.sh)/gossd")}
[ -s "$package" ] || fail 'no package'

folder=$(mktemp -d)
run=gossd-deb-$$
machines=()
network=
builder=
clean() {
  if [ -n "$builder" ]; then kill "$builder" 2>/dev/null && wait "$builder" || true; fi
  if ((${#machines[@]})); then docker rm --force "${machines[@]}" >/dev/null 2>&1 || true; fi
  if [ -n "$network" ]; then docker network rm "$network" >/dev/null 2>&1 || true; fi
  rm -rf "$folder"
}
trap clean EXIT

# This machine's release of Debian or Ubuntu, from this machine's package sources; kept as an image for the next run.
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
if [ "$(docker inspect --format '{{.Config.Labels.packages}}' "gossd-debian:$suite" 2>/dev/null)" != "$PACKAGES" ]; then
  for sources in /etc/apt/sources.list.d/{debian,ubuntu}.sources /etc/apt/sources.list; do [ -s "$sources" ] && break; done
  mmdebstrap --quiet --mode root --variant minbase --include "$PACKAGES" "$suite" "$folder/root.tar" "$sources" &
  builder=$!
  wait "$builder"
  builder=
  docker import --change "LABEL packages=$PACKAGES" "$folder/root.tar" "gossd-debian:$suite" >/dev/null
  rm "$folder/root.tar"
fi

# systemd mounts, and writes below its own control group, so the container is not confined; the unit's own filters are tested.
create() { # NAME FLAGS...: a machine with the package in /root
  local machine=$run-$1
  docker create --name "$machine" --hostname "$1" --cgroupns private --cap-add SYS_ADMIN --env container=docker \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec "${@:2}" \
    "gossd-debian:$suite" sh -c 'mount -o remount,rw /sys/fs/cgroup; exec /lib/systemd/systemd' >/dev/null
  machines+=("$machine")
  docker cp "$package" "$machine:/root/gossd.deb" >/dev/null
}
on() { docker exec "$run-$1" "${@:2}"; }
boot() { # NAME: starts a machine and waits until systemd has
  docker start "$run-$1" >/dev/null
  on "$1" timeout 60 sh -c 'until [ -S /run/systemd/private ]; do sleep 0.1; done
    systemctl is-system-running --wait' >/dev/null || { docker logs "$run-$1" >&2; fail 'systemd does not run'; }
}

create alone --network none
docker cp scripts/debian/scenario.sh "$run-alone:/root/" >/dev/null
boot alone
on alone bash /root/scenario.sh /root/gossd.deb

network=$run-net
docker network create "$network" >/dev/null
for host in a b c; do create "$host" --network "$network" && boot "$host"; done
. scripts/debian/cluster.sh
