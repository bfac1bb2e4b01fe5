# shellcheck shell=bash
# shellcheck disable=SC2034 # what use_placement sets is read by launch.sh
# Sourced by launch.sh, target torchrun: launch.sh runs on every host, and nothing is submitted.

on_worker() { return 0; }

use_placement() {
  if [ "$PLAN_RENDEZVOUS" = c10d ]; then use_c10d; else require_rendezvous; fi
}

# Hosts have no ranks of their own: the one that holds the rendezvous finishes the run. A host that takes another's place
# starts like all others, so each goes on from what is there.
use_c10d() {
  [ "$FRESH" = 0 ] || fail 2 "--fresh: with rendezvous c10d torchrun starts again by itself, and would start anew each time; remove the output folder instead"
  RESUME=1
  export AXOC_DYNAMIC_HOSTS=1 # hosts may be replaced, so none waits for all others
  MASTER_PORT=${MASTER_PORT:-29400}
  [ "$PLAN_NODES" -gt 1 ] || return 0
  if [ -z "${MASTER_ADDR:-}" ] && shown_as_name MASTER_ADDR; then return 0; fi
  [ -n "${MASTER_ADDR:-}" ] || fail 2 "the plan has $PLAN_NODES nodes: set MASTER_ADDR on each to one of them; it is not set"
  [ -n "${NODE_RANK:-}" ] || helper is-here "$MASTER_ADDR" || FIRST_HOST=0
}

submit() { return 0; }
