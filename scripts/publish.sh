#!/usr/bin/env bash
# Publishes the files that scripts/release.sh made, as .github/workflows/release.yml calls it.
#
#   scripts/publish.sh tag            fails unless the tag is that of the version in Cargo.toml
#   scripts/publish.sh image FOLDER   pushes the image for both kinds of processors, and says its name and digest
#   scripts/publish.sh release FOLDER makes the release of the tag
#   scripts/publish.sh notes          prints the text of the release
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "publish.sh: $*" >&2; exit 1; }
version=$(sed -n '/^\[package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
home=${GITHUB_SERVER_URL:-}/${GITHUB_REPOSITORY:-}
# Where the image goes, with its registry's name in front: a variable of the repository.
image=${GOSSD_IMAGE:-}

changes() { # the newest section of the changelog
  awk '/^## / { if (found) exit; found = 1; next } found' CHANGELOG.md
}
notes() {
  changes
  cat <<END

## Install

A program in /usr/local/bin; with \`small\` at the end one for small machines, with \`deb\` or \`rpm\` a package with a service.
Each is compared with its checksum before anything is installed:

\`\`\`sh
curl -fsSL $home/releases/download/v$version/install.sh | sudo sh -s -- program
docker run --rm $image:$version --version
cargo install --locked --git $home --tag v$version gossd
\`\`\`

\`gh attestation verify FILE --repo ${GITHUB_REPOSITORY:-}\` shows that the release's workflow made a file.
END
}

case ${1:-} in
  tag)
    [ "${GITHUB_REF_NAME:-}" = "v$version" ] || fail "the tag is ${GITHUB_REF_NAME:-}, and the version $version"
    grep --quiet "^## $version" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
    if grep --quiet "^## $version (unreleased)" CHANGELOG.md; then fail "CHANGELOG.md says that $version is unreleased"; fi
    ;;
  notes) notes ;;
  image)
    case $image in */*/*) ;; *) fail 'set the variable GOSSD_IMAGE of the repository: REGISTRY/OWNER/NAME, in lower case' ;; esac
    docker login "${image%%/*}" --username "$GITHUB_ACTOR" --password-stdin <<<"$GH_TOKEN"
    docker buildx create --use >/dev/null
    DOCKER_BUILD='docker buildx build' scripts/image.sh "amd64=$2/gossd-x86_64" "arm64=$2/gossd-aarch64" -- \
      --push --provenance=false --metadata-file image.json --tag "$image:$version" --tag "$image:latest" \
      --label "org.opencontainers.image.source=$home" --label 'org.opencontainers.image.licenses=MIT OR Apache-2.0'
    printf 'name=%s\ndigest=%s\n' "$image" "$(jq --raw-output '."containerimage.digest"' image.json)" >>"$GITHUB_OUTPUT"
    ;;
  release)
    notes | gh release create "v$version" --verify-tag --title "gossd $version" --notes-file - "$2"/*
    ;;
  *) fail 'usage: scripts/publish.sh tag|notes|image FOLDER|release FOLDER' ;;
esac
