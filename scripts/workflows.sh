#!/usr/bin/env bash
# Checks what runs elsewhere: GitHub's workflows against their schema and for what attackers use in them, and the shell
# in them and in scripts/. Installs its tools from PyPI and Debian.
#
#   scripts/workflows.sh
set -euo pipefail
cd "$(dirname "$0")/.."

TOOLS=(check-jsonschema==0.39.0 zizmor==1.32.0)
made_for="$(python3 --version) ${TOOLS[*]}"

fail() { echo "workflows.sh: $*" >&2; exit 1; }
if ! command -v shellcheck >/dev/null; then
  [ "$(id -u)" = 0 ] || fail 'shellcheck is missing (Debian: apt-get install shellcheck)'
  apt-get update -qq && apt-get install -y -qq --no-install-recommends shellcheck
fi
at=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")/workflows
if [ "$(cat "$at/tools" 2>/dev/null)" != "$made_for" ]; then
  rm -rf "$at"
  pip3 install --quiet --disable-pip-version-check --root-user-action ignore --target "$at" "${TOOLS[@]}"
  echo "$made_for" >"$at/tools"
fi
export PYTHONPATH=$at

workflows=(.github/workflows/*.yml)
python3 -m check_jsonschema --builtin-schema vendor.github-workflows "${workflows[@]}"
"$at/bin/zizmor" --offline --quiet --no-progress --persona regular "${workflows[@]}"

# The shell of each step, with a word for each of GitHub's own expressions.
blocks=$(mktemp -d)
trap 'rm -rf "$blocks"' EXIT
python3 - "$blocks" "${workflows[@]}" <<'END'
import pathlib, re, sys
from ruamel.yaml import YAML

folder, steps = pathlib.Path(sys.argv[1]), 0
for path in map(pathlib.Path, sys.argv[2:]):
    for name, job in YAML(typ="safe").load(path)["jobs"].items():
        for number, step in enumerate(job["steps"]):
            if "run" in step:
                block = re.sub(r"\$\{\{.*?\}\}", "expression", step["run"])
                (folder / f"{path.stem}-{name}-{number}.sh").write_text(f"#!/bin/bash -e\n{block}\n")
                # A script that a step runs is there, and can be run.
                for script in re.findall(r"scripts/[\w.-]+\.sh", block):
                    assert pathlib.Path(script).stat().st_mode & 0o111, f"{path}: {script}"
                steps += 1
assert steps >= 5, steps
END
shellcheck --severity warning "$blocks"/*.sh scripts/*.sh scripts/debian/{cluster.sh,scenario.sh,postinst,postrm,prerm} .ci/run
echo "${#workflows[@]} workflows and their shell are as they should be"
