#!/usr/bin/env bash
# Lays out what every package of gossd has, below a folder: the program, its units and settings, completions, manual pages
# and documentation. Beside the packages, gossd.debug has the source lines for stack traces.
#
#   scripts/tree.sh FOLDER PROGRAM
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "tree.sh: $*" >&2; exit 1; }
command -v objcopy >/dev/null || fail 'objcopy is missing (Debian: apt-get install binutils)'
(($# == 2)) && [ -x "$2" ] || fail 'there is no program to pack'
tree=$1 program=$2

umask 022
mkdir -p "$tree"
chmod 755 "$tree"
put() { install -D --mode "$1" "$2" "$tree/$3"; }

put 755 "$program" usr/bin/gossd
# A stack trace still names functions. Their source lines would be four fifths of the program.
out=${CARGO_TARGET_DIR:-target}/packages
mkdir -p "$out"
objcopy --only-keep-debug --compress-debug-sections "$program" "$out/gossd.debug"
objcopy --strip-debug --add-gnu-debuglink="$out/gossd.debug" "$tree/usr/bin/gossd"

for unit in examples/systemd/*.service; do put 644 "$unit" "lib/systemd/system/${unit##*/}"; done
put 644 examples/systemd/gossd.toml etc/gossd/gossd.toml
for completions in bash:usr/share/bash-completion/completions/gossd zsh:usr/share/zsh/vendor-completions/_gossd \
  fish:usr/share/fish/vendor_completions.d/gossd.fish; do
  "$program" completions "${completions%%:*}" | put 644 /dev/stdin "${completions#*:}"
done
"$program" man --dir "$tree/usr/share/man/man1"
gzip --best --no-name "$tree"/usr/share/man/man1/*

# The pages with everything that they link to. What is about the sources alone stays there: pages name it without a link.
doc=usr/share/doc/gossd
linked=(docs/openapi.json src/plugin/grpc/plugin.proto)
mapfile -t -O ${#linked[@]} linked < <(git ls-files examples 2>/dev/null || find examples -type f)
for file in README.md README.zh-CN.md CHANGELOG.md SECURITY.md docs/*.md docs/*.png docs/zh-CN/*.md "${linked[@]}"; do
  put 644 "$file" "$doc/$file"
done
find "$tree/$doc" -name '*.md' -exec sed --in-place --regexp-extended \
  's#\[([^]]*)\]\((\.\./)*(CONTRIBUTING\.md|LICENSE-[A-Z]+|src/lib\.rs|crates/[^)]*|scripts/[^)]*)\)#\1#g' {} +
dead=$(cd "$tree/$doc" && find . -name '*.md' | sort | while read -r page; do
  awk '/^ *```/ { code = !code; next } !code' "$page" | grep --only-matching --perl-regexp '\]\(\K[^)#]+' |
    grep --invert-match '^https\?://' | while read -r link; do
      [ -e "${page%/*}/$link" ] || echo "$page: $link"
    done || true
done)
[ -z "$dead" ] || fail "links of the packed pages that lead nowhere: $dead"
