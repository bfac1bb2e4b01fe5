# shellcheck shell=bash
# Sourced by launch.sh, target ray: one launch.sh a node, as a worker of Ray Train.

on_worker() { [ -n "${AXOC_RAY_WORKER:-}" ]; } # set by config/ray_train.py

use_placement() { require_rendezvous; }

# The bundle lies in a folder that all nodes see, under one path.
submit() {
  local python option
  for option in "$@"; do
    [ "$option" != --fresh ] || fail 2 "--fresh: Ray starts workers again by itself, and would start anew each time; remove the output folder instead"
  done
  show_file "$BUNDLE/config/ray.json"
  python=$(ray_python) || exit $?
  run_in "$BUNDLE" "$python" config/ray_train.py "$(helper output-dir)/.ray" "$@"
}

# Ray's own: the bundle's environment has no Ray, and Ray's need not have the bundle's packages.
ray_python() {
  local candidate beside=''
  ! command -v ray >/dev/null || beside=$(dirname "$(command -v ray)")/python
  for candidate in ${AXOC_RAY_PYTHON:+"$AXOC_RAY_PYTHON"} ${beside:+"$beside"} python3 python; do
    if [ "$DRY_RUN" = 1 ] || "$candidate" -c 'import ray.train.collective, ray.train.v2.api' >/dev/null 2>&1; then echo "$candidate" && return; fi
  done
  fail 11 'no Python here has Ray Train 2: pip install "ray[train]" (tried with 2.60), or name one that has it in AXOC_RAY_PYTHON'
}
