# shellcheck shell=bash
# shellcheck disable=SC2034 # what use_placement sets is read by launch.sh
# Sourced by launch.sh, target skypilot: one launch.sh a node, as the task's command.

on_worker() { [ -n "${SKYPILOT_NODE_RANK:-}" ]; }

use_placement() {
  NODE_RANK=$SKYPILOT_NODE_RANK
  NNODES=${SKYPILOT_NUM_NODES:-$PLAN_NODES}
  MASTER_ADDR=${SKYPILOT_NODE_IPS%%$'\n'*} # a line a node, the first node's first
  MASTER_PORT=${MASTER_PORT:-29500}
  require_rendezvous
}

# From the folder that relative paths count from: it is what travels.
submit() {
  local base within
  takes_no_options
  base=$(helper base-dir)
  within=${BUNDLE#"$base"/}
  [ "$within" != "$BUNDLE" ] || fail 2 "$BUNDLE does not lie in $base, which is what SkyPilot copies: plan it there"
  show_file "$BUNDLE/config/skypilot.yaml"
  need sky "SkyPilot's" "pip install skypilot, then sky check; or set target: torchrun"
  run_in "$base" sky jobs launch --yes --detach-run --env "AXOC_BUNDLE=$within" "$BUNDLE/config/skypilot.yaml"
}
