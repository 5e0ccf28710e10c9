#!/usr/bin/env bash
# Builds the image of a release: the last stage of the Dockerfile around programs that are built already, and nothing else.
#
#   scripts/image.sh [amd64=PROGRAM] [arm64=PROGRAM] -- FLAGS OF docker build
#
# For one kind of processor, any Docker engine will do. For both, BuildKit: DOCKER_BUILD='docker buildx build'.
set -euo pipefail
cd "$(dirname "$0")/.."

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/out/data"
architectures=()
while (($#)) && [ "$1" != -- ]; do
  case $1 in
    amd64=* | arm64=*) ;;
    *) echo 'usage: scripts/image.sh [amd64=PROGRAM] [arm64=PROGRAM] -- FLAGS OF docker build' >&2; exit 2 ;;
  esac
  install -D --mode 755 "${1#*=}" "$context/out/${1%%=*}/gossd"
  architectures+=("${1%%=*}")
  shift
done
(($#)) && ((${#architectures[@]})) || { echo 'image.sh: no program' >&2; exit 2; }
shift
platforms=()
case ${#architectures[@]} in
  1) platforms=(--build-arg "TARGETARCH=${architectures[0]}") ;;
  *) platforms=(--platform "$(printf 'linux/%s\n' "${architectures[@]}" | paste --serial --delimiters ,)") ;;
esac
sed -n '/^FROM scratch$/,$ { s/ --from=build / /; p }' Dockerfile >"$context/Dockerfile"
# What is in the image is as old as its commit.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
find "$context/out" -exec touch --date "@$SOURCE_DATE_EPOCH" {} +
read -r -a build <<<"${DOCKER_BUILD:-docker build}"
"${build[@]}" "${platforms[@]}" "$@" "$context"
