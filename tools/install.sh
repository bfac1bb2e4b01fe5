#!/usr/bin/env bash
# Makes .venv: the runtime's locked packages as launch.sh would install them, the tools' lock, and the repository's own
# packages as editable installs. Called by `make install`; safe to call again.
set -Eeuo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"

# shellcheck disable=SC2034 # read by environment.sh
PLAN_PROFILE=cpu PLAN_DEVICE=cpu DRY_RUN=0
BUNDLE=$(mktemp -d)
trap 'rm -rf "$BUNDLE"' EXIT
say() { printf 'install: %s\n' "$*"; }
fail() {
  printf 'install: %s\n' "$2" >&2
  exit "$1"
}
run_watched() { "$@"; }
helper() {
  local command=$1
  shift
  "$PYTHON" -I -B templates/axoc_templates/launch/helper.py "$command" "$BUNDLE" "$@"
}
# shellcheck source=templates/axoc_templates/launch/environment.sh
. templates/axoc_templates/launch/environment.sh

PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
  fail 11 "Python 3.11 to 3.13 is needed: PYTHON=python3.12 make install"
cp templates/axoc_templates/locks/cpu.lock "$BUNDLE/requirements.lock"
digest=$(helper lock-digest)
if [ "$(cat .venv/.axoc-complete 2>/dev/null || true)" != "$digest" ]; then make_environment "$root/.venv" "$digest"; fi
say "tools and this repository's packages"
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps)
"${pip[@]}" --require-hashes --only-binary :all: -r tools/dev.lock
say "what exports are checked with"
"${pip[@]}" --require-hashes --only-binary :all: -r templates/axoc_templates/locks/cpu-export.lock
"${pip[@]}" --no-build-isolation -e . -e runtime -e examples/docstrings_dataset -e examples/tickets_dataset
say "done: .venv/bin/axoc"
