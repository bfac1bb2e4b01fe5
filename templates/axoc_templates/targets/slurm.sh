# shellcheck shell=bash
# shellcheck disable=SC2034 # what use_placement sets is read by launch.sh
# Sourced by launch.sh, target slurm: one launch.sh a node, as a task of the job's step.

# In an allocation's own shell or script there is no task yet.
on_worker() { [ -n "${SLURM_JOB_ID:-}" ] && [ -n "${SLURM_STEP_ID:-}" ] && [ -n "${AXOC_SLURM_TASK:-}" ]; }

# The node's number is known here and not where the job was submitted.
use_placement() {
  INTERRUPTED=1 # srun gives the highest code of all tasks: that of a node which failed, not of those ended for it
  NODE_RANK=$SLURM_NODEID
  NNODES=$SLURM_NNODES
  MASTER_ADDR=${MASTER_ADDR:-$(slurm_address)}
  MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
  require_rendezvous
  if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || [ "${SLURM_ARRAY_TASK_ID:-0}" -gt "${SLURM_ARRAY_TASK_MIN:-0}" ]; then
    RESUME=1 FRESH=0
  fi
}

# Of the first node, as Slurm itself reaches it: names of nodes need not be host names.
slurm_address() {
  local first='' line
  read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST") || true
  while read -r line; do
    case $line in *NodeAddr=*) line=${line#*NodeAddr=} && printf '%s\n' "${line%% *}" && return ;; esac
  done < <(scontrol show node "$first")
  printf '%s\n' "$first"
}

submit() {
  show_file "$BUNDLE/config/slurm.sbatch"
  if [ -n "${SLURM_JOB_ID:-}" ]; then # an allocation that is there already
    SLURM_SUBMIT_DIR=$BUNDLE run_in "$BUNDLE" bash config/slurm.sbatch "$@"
    return
  fi
  need sbatch "Slurm's" "run this on a login node of the cluster, or set target: torchrun"
  run_in "$BUNDLE" sbatch config/slurm.sbatch "$@"
}
