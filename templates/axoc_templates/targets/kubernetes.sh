# shellcheck shell=bash
# Sourced by launch.sh, target kubernetes: one launch.sh a node, as a pod of a TrainJob or of a JobSet.

# A pod of neither, such as a notebook, may submit.
on_worker() { [ -n "${KUBERNETES_SERVICE_HOST:-}" ] && [ -n "${PET_NODE_RANK:-}${JOB_COMPLETION_INDEX:-}" ]; }

# Kubeflow says it as torchrun reads it; a JobSet's pods are told by name.
use_placement() {
  NNODES=${NNODES:-${PET_NNODES:-$PLAN_NODES}}
  NODE_RANK=${NODE_RANK:-${PET_NODE_RANK:-${JOB_COMPLETION_INDEX:-}}}
  MASTER_ADDR=${MASTER_ADDR:-${PET_MASTER_ADDR:-}}
  MASTER_PORT=${MASTER_PORT:-${PET_MASTER_PORT:-}}
  require_rendezvous
}

submit() {
  local file=trainjob.yaml
  takes_no_options
  if [ "$DRY_RUN" = 0 ]; then
    need kubectl "Kubernetes'" "install it and name the cluster in its kubeconfig, or set target: torchrun"
    file=$(known_file)
  else
    say "the image, built and pushed once:"
    printf '  docker build -t %q %q && docker push %q\n' "$PLAN_IMAGE" "$BUNDLE" "$PLAN_IMAGE"
    say "where the cluster knows no TrainJob, config/jobset.yaml in the place of this:"
    show_file "$BUNDLE/config/trainjob.yaml"
  fi
  run_in "$BUNDLE" kubectl create -f "config/$file" ||
    fail 12 "kubectl did not take config/$file; a run of this name that is there already is deleted by: kubectl delete -f $BUNDLE/config/$file"
}

# Kubeflow's TrainJob where the cluster has it, else the JobSet that it is made of.
known_file() {
  local kinds
  kinds=$(kubectl api-resources --no-headers -o name) || fail 12 "kubectl reaches no cluster: see its lines above"
  case $kinds in
    *trainjobs.trainer.kubeflow.org*) echo trainjob.yaml ;;
    *jobsets.jobset.x-k8s.io*) echo jobset.yaml ;;
    *) fail 12 "the cluster knows neither TrainJob nor JobSet: have Kubeflow Trainer v2 or JobSet installed" ;;
  esac
}
