#!/usr/bin/env bash
# Fuzzes the code that reads foreign bytes: every target in fuzz/fuzz_targets, or the named ones, one after the other, with
# this many executions each. Needs Rust's nightly toolchain, cargo-fuzz and a C++ compiler. Exits with 1 if anything was found.
#
#   scripts/fuzz.sh [--runs N] [--keep] [TARGET...]
#
# The inputs found stay in the target folder, and the next run starts from them. With --keep, a smallest set that reaches the
# same code goes to fuzz/corpus, one input per line, for tests/corpus.rs. No sanitizer: gossd forbids unsafe code, and they
# cost most of the executions. Assertions and overflow checks are on, also in dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "fuzz.sh: $*" >&2; exit 2; }

runs=10000000
keep=
targets=()
while (($#)); do
  case $1 in
    --runs) [[ ${2:-} =~ ^[0-9]+$ ]] || fail '--runs takes a number'; runs=$2; shift 2 ;;
    --keep) keep=1; shift ;;
    -*) fail "there is no $1: scripts/fuzz.sh [--runs N] [--keep] [TARGET...]" ;;
    *) [ -e "fuzz/fuzz_targets/$1.rs" ] || fail "there is no target $1: $(cd fuzz/fuzz_targets && echo *.rs)"
      targets+=("$1"); shift ;;
  esac
done
if ((${#targets[@]} == 0)); then
  for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

missing=()
command -v cargo >/dev/null || missing+=('Rust (https://rustup.rs)')
cargo +nightly --version >/dev/null 2>&1 || missing+=('its nightly toolchain (rustup toolchain install nightly --profile minimal)')
command -v cargo-fuzz >/dev/null || missing+=('cargo-fuzz (cargo install cargo-fuzz --locked)')
command -v c++ >/dev/null || missing+=('a C++ compiler (Debian: apt-get install build-essential)')
if ((${#missing[@]})); then
  printf 'fuzz.sh: missing: %s\n' "${missing[@]}" >&2
  exit 2
fi

work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
mkdir -p "$work"
echo "building; then ${#targets[@]} targets, $runs executions each; logs in $work/*.log" >&2
RUSTC_WRAPPER=$PWD/fuzz/rustc.sh CARGO_TARGET_DIR=$work nice -n 19 \
  cargo +nightly fuzz build --fuzz-dir fuzz -O -s none >"$work/build.log" 2>&1 || { tail -40 "$work/build.log" >&2; exit 2; }
built=$work/$(rustc -vV | sed -n 's/^host: //p')/release

pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true' EXIT

# The corpus of a target, as files.
unpack() {
  local n=0 line
  mkdir -p "$2"
  while read -r line; do
    n=$((n + 1))
    base64 -d <<<"$line" >"$2/kept-$n"
  done <"$1"
}

# The other direction: short inputs first, up to the size limit of a corpus.
pack() {
  find "$1" -type f -exec base64 -w 0 {} \; -exec echo \; | awk '{ print length, $0 }' | sort -n -k 1,1 -k 2 | cut -d ' ' -f 2- |
    awk '{ size += length + 1 } size <= 100000' >"$2"
}

found=0
printf '%-20s %12s %9s %7s %9s\n' target executions exec/s edges findings
for target in "${targets[@]}"; do
  learnt=$work/learnt/$target artifacts=$work/findings/$target log=$work/$target.log
  corpus=fuzz/corpus/$target.base64
  mkdir -p "$learnt" "$artifacts"
  [ ! -e "$corpus" ] || unpack "$corpus" "$learnt"
  options=(-runs="$runs" -max_len=600 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$artifacts/")
  [ ! -e "fuzz/dictionaries/$target.dict" ] || options+=(-dict="fuzz/dictionaries/$target.dict")
  started=$(date +%s%N)
  nice -n 19 env RUST_BACKTRACE=0 "$built/$target" "$learnt" "${options[@]}" >"$log" 2>&1 &
  pid=$!
  wait "$pid" || true
  pid=
  elapsed=$((($(date +%s%N) - started) / 1000000 + 1))
  executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
  executed=${executed:-0}
  edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
  findings=$(find "$artifacts" -type f | wc -l)
  # A target that did not finish has found something, or has not even begun.
  if ((findings == 0 && executed < runs)); then findings='?'; fi
  [ "$findings" = 0 ] || found=1
  printf '%-20s %12s %9s %7s %9s\n' "$target" "$executed" $((executed * 1000 / elapsed)) "${edges:-0}" "$findings"
  if [ -n "$keep" ]; then
    rm -rf "$work/least"
    mkdir "$work/least"
    nice -n 19 "$built/$target" -set_cover_merge=1 -use_counters=0 "$work/least" "$learnt" >>"$log" 2>&1
    pack "$work/least" "$corpus"
  fi
  if [ "$findings" != 0 ]; then
    grep -A3 'panicked at' "$log" | head -4 | sed 's/^/  /' || true
    echo "  inputs in $artifacts, log in $log"
  fi
done
exit "$found"
