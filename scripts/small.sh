#!/usr/bin/env bash
# What gossd takes on a small machine: bytes of the program, and memory of an agent without peers that has been idle.
#
#   scripts/small.sh [--program FILE] [--seconds N; 60] [FLAGS OF gossd run]
#
# By default the program is built with the profile `small`, for GOSSD_TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."

program='' seconds=60
while (($#)); do
  case $1 in
    --program) program=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    *) break ;;
  esac
done
[ -n "$program" ] || program=$(scripts/program.sh --profile small --no-default-features)

folder=$(mktemp -d)
agent=
trap '[ -z "$agent" ] || { kill "$agent" && wait "$agent"; } 2>/dev/null || true; rm -rf "$folder"' EXIT
mkdir -m 700 "$folder/data"
: >"$folder/out"
"$program" run --name small --plugin 127.0.0.1:0 --gossip 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir "$folder/data" \
  --control "$folder/data/control" "$@" >"$folder/out" 2>"$folder/log" &
agent=$!
# What is measured has served somebody.
until plugin=$(sed -n 's/^plugin \(http.*\)/\1/p' "$folder/out") && [ -n "$plugin" ]; do
  kill -0 "$agent" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.1
done
curl --fail --silent --show-error --max-time 5 "$plugin?name=x" >/dev/null
sleep "$seconds"

kilobytes() { awk -v name="$1:" '$1 == name { print $2 }' "/proc/$agent/smaps_rollup"; }
threads=$(awk '$1 == "Threads:" { print $2 }' "/proc/$agent/status")
printf 'program %s bytes; after %s s: Rss %s kB, Pss %s kB, of these Private_Dirty %s kB; %s threads\n' \
  "$(stat --dereference --format %s "$program")" "$seconds" "$(kilobytes Rss)" "$(kilobytes Pss)" "$(kilobytes Private_Dirty)" "$threads"
