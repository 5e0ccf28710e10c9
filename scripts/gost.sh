#!/usr/bin/env bash
# Takes the program out of gost's published image, in the version that the examples use, for scripts/docker-test.sh --gost.
# Needs a Docker engine that has the image or can pull it. Prints the path.
#
#   scripts/gost.sh [IMAGE]
set -euo pipefail
cd "$(dirname "$0")/.."

image=${1:-$(sed -n 's/^ *image: \(gogost\/gost:.*\)/\1/p' examples/compose/compose.yaml)}
out=${CARGO_TARGET_DIR:-target}/gost
mkdir -p "$out"
container=$(docker create "$image")
trap 'docker rm "$container" >/dev/null' EXIT
docker cp "$container:/bin/gost" "$out/gost" >/dev/null
# The image that the harness puts it in has no libraries.
if grep --quiet --text --max-count 1 '/lib[0-9]*/ld-' "$out/gost"; then
  echo "gost.sh: the gost of $image is not static" >&2
  exit 1
fi
realpath "$out/gost"
