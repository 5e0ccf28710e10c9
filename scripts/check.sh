#!/usr/bin/env bash
# Everything that has to hold before a change lands; CI runs exactly this. `--fast` is for before a commit: formatting,
# lints, the tests without sockets, and the documentation. Needs Rust, a C compiler, curl, ip, nft, h2load, redis-server,
# rpmbuild, shellcheck, promtool, pip3, valgrind and Chromium (GOSSD_SKIP_BROWSER=1 goes without the last), and a Docker engine for the
# last steps. Without an engine these are skipped, unless GOSSD_REQUIRE_DOCKER=1.
set -euo pipefail
cd "$(dirname "$0")/.."

case $* in '') fast= ;; --fast) fast=1 ;; *) echo "usage: scripts/check.sh [--fast]" >&2; exit 2 ;; esac

step() {
  local started=$SECONDS
  printf '\n== %s\n' "$*"
  "$@"
  printf '== done in %s s\n' $((SECONDS - started))
}

# One choice of packages and features, so that each crate is built once for all tests.
features=gossd/fuzz,gossd/schema
tests() { cargo test --locked --quiet --workspace --features "$features" "$@"; }
quick() {
  step cargo fmt --all --check
  step cargo clippy --locked --workspace --all-targets --features "$features" --quiet -- -D warnings
  step tests --lib --bins
  step env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet --document-private-items \
    --package gossd --package gossd-core
}
if [ -n "$fast" ]; then
  quick
  printf '\nthe quick checks passed in %s s; scripts/check.sh has the others\n' "$SECONDS"
  exit
fi

missing=()
packages=(build-essential curl iproute2 nftables nghttp2-client redis-server rpm shellcheck valgrind)
for tool in cargo cc curl h2load ip nft redis-server rpmbuild shellcheck valgrind; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ "${GOSSD_SKIP_BROWSER:-}" != 1 ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then
  missing+=(chromium)
  packages+=(chromium fonts-dejavu-core)
fi
# Prometheus' own check of the alert rules.
command -v promtool >/dev/null || { missing+=(promtool); packages+=(prometheus); }
command -v pip3 >/dev/null || { missing+=(pip3); packages+=(python3-pip); }
if ((${#missing[@]})) && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  case " ${missing[*]} " in *' cargo '*) echo "cargo is missing: install Rust first" >&2; exit 1 ;; esac
  step apt-get update -qq
  step apt-get install -y -qq --no-install-recommends "${packages[@]}"
elif ((${#missing[@]})); then
  echo "missing: ${missing[*]} (on Debian: apt-get install ${packages[*]}, and Rust)" >&2
  exit 1
fi

# axe-core, the rules of accessibility that tests/page_looks.rs holds the page against, out of a Python package that has it.
axe() {
  local at=${CARGO_TARGET_DIR:-target}/axe package=axe-playwright-python==0.1.8
  [ ! -s "$at/axe.min.js" ] || return 0
  mkdir -p "$at"
  pip3 download --quiet --disable-pip-version-check --no-deps --dest "$at" \
    --require-hashes -r <(echo "$package --hash=sha256:fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8")
  python3 -m zipfile -e "$at"/*.whl "$at/wheel"
  cp "$at/wheel/axe_playwright_python/axe.min.js" "$at/"
}
[ "${GOSSD_SKIP_BROWSER:-}" = 1 ] || step axe

# Helm, and Kubernetes' schemas, for tests/chart.rs.
step scripts/chart.sh
quick
step scripts/workflows.sh
step scripts/install-test.sh
step scripts/supply.sh
# Slower: agents in one process and as programs, through real sockets; the simulated gost compared with recordings of a
# real one; and the inputs that the fuzzers kept. Two at a time, because they measure promised times.
step tests --test '*' --no-fail-fast -- --test-threads 2
step tests --benches
# Larger clusters than before a commit; the one of minutes aside.
step tests --lib -- --ignored --skip nobody_of_fifty
# The measuring programs still work; the figures of such a short run mean nothing.
step scripts/static.sh
built=$(scripts/static.sh)
lab() { "$built/gossd-lab" "$@"; }
step lab propagation --agents 3 --changes 10
step lab newcomer --records 2000
step lab traffic --records 0,500 --rates 50 --seconds 1
step lab footprint --records 2000 --seconds 1 --starts 2
step lab calls --records 1000 --connections 4 --seconds 1 --rounds 1
step lab calls --records 1000 --connections 4 --seconds 1 --rounds 1 --redis
# With the plugin's own expiry, a minute, it takes two.
step lab distance --trips 5 --expiry 15
step lab instructions --calls 300
step lab longest --records 2000 --seconds 1 --restarts 1
step lab siege --short
# Both kinds of packages are laid out alike; only Debian's can be installed here, below.
step scripts/rpm.sh --program "$built/gossd"
step scripts/deb.sh --program "$built/gossd"
# A thousand stories of clusters in virtual time; and some with a broken agent, which have to fail. The same seeds are the
# same stories, to the byte, in every process and on any number of threads.
same() { diff <(lab simulate --seeds 50) <(lab simulate --seeds 50 --jobs 1); }
notice() {
  # Not just any failure: stories have to run, and to fail.
  local said
  said=$(lab simulate --seeds 10 --broken "$1" 2>&1 || true)
  grep 'of 10 stories failed' <<<"$said"
}
step lab simulate --seeds 1000
step same
step notice leases
step notice suspicion
# A week of agents that restart and gosts that come and go, in half a minute; figures are checked too.
step lab soak --short
# Slowest: real faults of hosts in containers; and a Debian machine on which the package is installed and purged.
skipped=()
if docker version >/dev/null 2>&1; then
  step scripts/docker-test.sh --set short --noticed
  if [ "$(id -u)" = 0 ] && command -v mmdebstrap apt-get >/dev/null; then
    step scripts/deb-test.sh
  else
    skipped+=('the test of the Debian package. It needs root, and apt-get or mmdebstrap.'
      'Nothing has shown that gossd can be installed, upgraded and purged.'
      'As root: scripts/deb-test.sh')
  fi
elif [ "${GOSSD_REQUIRE_DOCKER:-}" = 1 ]; then
  printf '\nno Docker engine answers, and GOSSD_REQUIRE_DOCKER=1: the tests in containers have to run\n' >&2
  exit 1
else
  skipped+=('the tests in containers. No Docker engine answers.'
    'Nothing has shown that hosts survive what breaks them, nor that the package installs.'
    'With an engine: scripts/docker-test.sh --set short; scripts/deb-test.sh')
fi

if ((${#skipped[@]} == 0)); then
  printf '\nall checks passed in %s s\n' "$SECONDS"
  exit
fi
printf '\nall other checks passed in %s s\n' "$SECONDS"
{
  line=$(printf '!%.0s' {1..94})
  printf '\n%s\n' "$line"
  printf '!!  %-88s  !!\n' "SKIPPED: ${skipped[0]}" "${skipped[@]:1}"
  printf '%s\n' "$line"
} >&2
