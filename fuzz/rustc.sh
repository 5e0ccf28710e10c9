#!/usr/bin/env bash
# Between cargo and the compiler: only gossd and what reads inputs for it is instrumented. In the rest, coverage says
# nothing about gossd, and costs three quarters of the executions.
set -euo pipefail
instrumented=' gossd gossd_core gossd_fuzz postcard form_urlencoded serde_json toml toml_parser '

rustc=$1
shift
arguments=("$@")
for ((at = 0; at < $#; at++)); do
  if [ "${arguments[at]}" = --crate-name ]; then name=${arguments[at + 1]}; fi
done
# The targets themselves are named by their files.
if [ -z "${name:-}" ] || [[ $instrumented = *" $name "* ]] || [[ "$*" = *fuzz_targets/* ]]; then
  exec "$rustc" "$@"
fi
plain=()
for argument in "$@"; do
  case $argument in
    -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
    *) plain+=("$argument") ;;
  esac
done
exec "$rustc" "${plain[@]}"
