#!/usr/bin/env bash
# Runs this bundle: checks it, makes its environment, checks the machine, prepares the data, trains.
# It is the same in every bundle: what the plan decided stands in job.json and config/launch.env.
set -Eeuo pipefail

usage() {
  cat <<'TEXT'
Usage: launch.sh [options]

  --dry-run          print what would run or be submitted, and do nothing
  --install          make the environment, then stop
  --preflight        stop after checking this machine, or all hosts together, and showing what each has
  --prepare          stop after preparing the data
  --resume           go on from the last checkpoint
  --fresh            start anew though an unfinished run has left checkpoints, which are deleted
  --upload           send to the spec's upload_to what is not there yet, then stop
  --no-install       use the current Python and its packages ($AXOC_PYTHON, or python3)
  --python PY        the Python to use, or to make the environment with (3.11 to 3.13)
  --base-dir DIR     where relative paths of the spec count from (default: as planned)
  --allow-altered    run though files of the bundle were changed
  -h, --help         this text

Environment: AXOC_ENV_DIR, AXOC_PYTHON, AXOC_BASE_DIR; AXOC_HANG_SECONDS (600; 0: never), after which a step that
does not end ends the run; AXOC_UPLOAD_PATIENCE_SECONDS (300), after which a store that fails is given up;
AXOC_PREFLIGHT_SLOW (fail on accelerators, warn on CPUs; off), what a slow link or device leads to; AXOC_HOST_WAIT_SECONDS
(900), how long hosts wait for one another; AXOC_HOST_SILENT_SECONDS (30; 0: never), after which a host is lost; for several nodes
NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, which engines other than torchrun set by themselves.
Exit codes: 0 done, 1 wrong inputs, 2 usage, 10 bundle altered, 11 environment, 12 this machine, 13 data,
14 training, 15 out of memory, 16 not what was planned, 17 upload, 18 export,
19 hosts that differ, 20 hosts that do not reach one another, or a port in use, 21 a host lost or missing,
22 a link or device slower than planned, 130 interrupted.
TEXT
}

DRY_RUN=0 INSTALL=1 RESUME=0 FRESH=0 UPLOAD=0 ALLOW_ALTERED=0 LAST_STEP=train
PYTHON=${AXOC_PYTHON:-} BASE_DIR=${AXOC_BASE_DIR:-}
STEP=start HOST_PYTHON='' CHILD='' PLUGIN_PATH='' GIVEN_PYTHON=${AXOC_PYTHON:-} FORWARDED=() INTERRUPTED=130 FIRST_HOST=1

say() { printf 'axoc: %s\n' "$*"; }
warn() { printf 'axoc: %s\n' "$*" >&2; }
usage_error() {
  warn "$1; launch.sh --help lists the options"
  exit 2
}
fail() {
  warn "$2"
  exit "$1"
}

parse_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --dry-run) DRY_RUN=1 ;;
      --install) LAST_STEP=environment ;;
      --preflight) LAST_STEP=preflight ;;
      --prepare) LAST_STEP=prepare ;;
      --resume) RESUME=1 ;;
      --fresh) FRESH=1 ;;
      --upload) UPLOAD=1 ;;
      --no-install) INSTALL=0 ;;
      --allow-altered) ALLOW_ALTERED=1 ;;
      --python | --base-dir)
        [ $# -ge 2 ] || usage_error "$1 needs a value"
        set_option "$1" "$2" && shift
        ;;
      --python=* | --base-dir=*) set_option "${1%%=*}" "${1#*=}" ;;
      *) usage_error "unknown option $1" ;;
    esac
    shift
  done
  [ "$RESUME$FRESH" != 11 ] || usage_error "--resume and --fresh exclude each other"
}

set_option() {
  [ -n "$2" ] || usage_error "$1 needs a value"
  if [ "$1" = --python ]; then PYTHON=$2 GIVEN_PYTHON=$2; else BASE_DIR=$2; fi
}

# The folder this script really lies in, whatever symlinks it was called through.
bundle_folder() {
  local path=$1 link
  while [ -L "$path" ]; do
    link=$(readlink "$path")
    case $link in /*) path=$link ;; *) path=$(dirname "$path")/$link ;; esac
  done
  (unset CDPATH && cd "$(dirname "$path")" && pwd -P)
}

# The last line of a run that failed: where, and what to do.
finish() {
  local code=$?
  trap - EXIT
  [ "$code" -eq 0 ] || warn "failed at step '$STEP' (exit $code): $(advice "$code")"
  exit "$code"
}

advice() {
  case $1 in
    10) echo "write the bundle again with axoc plan, or pass --allow-altered" ;;
    11) echo "see the lines above; --no-install uses the Python you have" ;;
    12) echo "see what differs above; plan again for this machine with axoc plan --inventory" ;;
    13) echo "see the file and row named above" ;;
    15) echo "see the memory above; plan again with a smaller distributed.memory_budget_per_gpu_gb" ;;
    16) echo "see both values above; plan again, or use the environment of requirements.lock" ;;
    130) echo "interrupted; --resume goes on from the last checkpoint" ;;
    14) echo "see the first error above; --resume goes on from the last checkpoint" ;;
    17) echo "see the lines above; nothing is lost here, and --upload sends it once the store takes it" ;;
    19) echo "see what differs above, and on which host" ;;
    20) echo "see which hosts or ports above" ;;
    21) echo "see the host named above; with all there, --resume goes on from the last checkpoint" ;;
    22) echo "see what is slow above; AXOC_PREFLIGHT_SLOW=warn goes on all the same" ;;
    *) echo "see the lines above" ;;
  esac
}

# Runs a command so that signals reach it and all its children: it gets a process group of its own.
run_watched() {
  local code=0
  if [ "$DRY_RUN" = 1 ]; then
    printf '  ' && printf '%q ' "$@" && printf '\n'
    return 0
  fi
  set -m
  "$@" </dev/null &
  CHILD=$!
  set +m
  wait "$CHILD" || code=$?
  CHILD=''
  return "$code"
}

interrupt() {
  trap 'kill -KILL -- "-$CHILD" 2>/dev/null || true' INT TERM HUP
  if [ -n "$CHILD" ]; then
    warn "stopping; a second signal kills at once"
    kill -s "$1" -- "-$CHILD" 2>/dev/null || true
    while kill -0 "$CHILD" 2>/dev/null; do wait "$CHILD" || true; done
  fi
  exit "$INTERRUPTED"
}

# Takes --python, $AXOC_PYTHON, or the first on PATH of a version that the lock was made for.
find_python() {
  local candidate candidates=(python3 python python3.12 python3.11 python3.13)
  if [ "$INSTALL" = 0 ]; then candidates=(python3 python); fi # the current environment, not any other
  if [ -n "$PYTHON" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    if is_supported "$candidate"; then
      PYTHON=$(command -v "$candidate")
      HOST_PYTHON=$PYTHON
      return 0
    fi
  done
  fail 11 "no Python 3.11 to 3.13 among: ${candidates[*]}; install one, or name it with --python"
}

is_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

helper() {
  local command=$1
  shift
  "$HOST_PYTHON" -I -B "$BUNDLE/launch/helper.py" "$command" "$BUNDLE" "$@"
}

verify_bundle() {
  local code=0
  [ -f "$BUNDLE/launch/helper.py" ] || fail 10 "missing: launch/helper.py"
  helper verify || code=$?
  if [ "$code" -eq 0 ]; then
    say "bundle: as it was written"
  elif [ "$ALLOW_ALTERED" = 1 ]; then
    warn "warning: the bundle was altered (files above); running all the same"
  else
    fail 10 "the bundle was altered: the files above are not as axoc wrote them"
  fi
}

export_environment() {
  export PYTHONPATH="$BUNDLE/runtime${PLUGIN_PATH:+:$PLUGIN_PATH}"
  if [ "$INSTALL" = 0 ]; then PYTHONPATH=$PYTHONPATH${USER_PYTHONPATH:+:$USER_PYTHONPATH}; fi
  export PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 # nothing from the working directory is imported
  export HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 TOKENIZERS_PARALLELISM=false
  local cores threads
  cores=$(helper cores) || cores=1
  threads=$((cores / PLAN_PROCESSES_PER_NODE))
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
  if [ "$PLAN_NODES" -gt 1 ]; then export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}; fi # hosts without names in DNS
  if [ "$PLAN_DEVICE" = cuda ]; then
    export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True} # the plan's memory counts on it
    export NCCL_DEBUG=${NCCL_DEBUG:-WARN} TORCH_NCCL_ASYNC_ERROR_HANDLING=${TORCH_NCCL_ASYNC_ERROR_HANDLING:-1}
  fi
}

use_base_dir() {
  [ -n "$BASE_DIR" ] || return 0
  [ -d "$BASE_DIR" ] || fail 2 "--base-dir: $BASE_DIR is not a folder"
  AXOC_BASE_DIR=$(unset CDPATH && cd "$BASE_DIR" && pwd -P)
  export AXOC_BASE_DIR
}

# One process, before any process group exists.
runtime() {
  local code=0 command=$1
  shift
  run_watched "$PYTHON" -m axoc_runtime "$command" "$BUNDLE/job.json" "$@" || code=$?
  [ "$code" -eq 0 ] || exit "$code"
}

# One node speaks to the store. A run that is trained has not failed because its copy elsewhere is not whole yet.
uses_store() { [ "$PLAN_UPLOADS" = 1 ] && is_first_host; }
is_first_host() { [ "$FIRST_HOST" = 1 ] && [ "${NODE_RANK:-0}" = 0 ]; }

fetch() {
  step fetch "looking at the store"
  set --
  [ "$RESUME" = 0 ] || set -- --resume
  [ "$FRESH" = 0 ] || set -- --fresh
  runtime fetch "$@"
}

upload_rest() {
  local code=0
  step upload "uploading what is not on the store yet"
  run_watched "$PYTHON" -m axoc_runtime upload "$BUNDLE/job.json" || code=$?
  [ "$code" -eq 0 ] || warn "warning: the run is done and whole here, but not on the store: launch.sh --upload sends the rest"
}

train() {
  local code=0 record
  rendezvous
  set -- train "$BUNDLE/job.json"
  [ "$RESUME" = 0 ] || set -- "$@" --resume
  [ "$FRESH" = 0 ] || set -- "$@" --fresh
  record=$(helper output-dir)/.exit-code
  [ "$DRY_RUN" = 1 ] || rm -f "$record"
  run_watched "$PYTHON" -m axoc_runtime.torchrun "${WHERE[@]}" --nproc_per_node "$PLAN_PROCESSES_PER_NODE" \
    -m axoc_runtime "$@" || code=$?
  [ "$code" -eq 0 ] || exit "$(training_code "$record")"
}

# torchrun turns every worker's exit code into 1; the runtime may leave the real one in its output folder.
training_code() {
  local recorded=''
  [ ! -s "$1" ] || read -r recorded <"$1" || true
  case $recorded in
    [1-9] | [1-9][0-9] | 1[0-9][0-9]) echo "$recorded" ;;
    *) echo 14 ;;
  esac
}

# Announces a step; ends the run after the last one that was asked for.
step() {
  STEP=$1
  say "$2"
}
stop_after() {
  if [ "$LAST_STEP" = "$1" ]; then exit 0; fi
}

main() {
  parse_options "$@"
  trap finish EXIT
  trap 'interrupt INT' INT
  trap 'interrupt TERM' TERM
  trap 'interrupt HUP' HUP
  BUNDLE=$(bundle_folder "${BASH_SOURCE[0]}")
  USER_PYTHONPATH=${PYTHONPATH:-}
  unset PYTHONPATH

  step bundle "checking the bundle"
  find_python
  verify_bundle
  use_base_dir
  # shellcheck source=/dev/null
  . "$BUNDLE/config/launch.env"
  # shellcheck source=launch/environment.sh
  . "$BUNDLE/launch/environment.sh"
  # shellcheck source=launch/submit.sh
  . "$BUNDLE/launch/submit.sh"
  # shellcheck source=/dev/null
  . "$BUNDLE/config/target.sh"
  if [ "$LAST_STEP" != environment ] && [ "$UPLOAD" = 0 ] && ! on_worker; then
    step submit "submitting to $PLAN_TARGET"
    forwarded_options
    submit ${FORWARDED[@]+"${FORWARDED[@]}"}
    exit 0
  fi
  if [ "$LAST_STEP" != environment ]; then use_placement; fi
  export NNODES NODE_RANK MASTER_ADDR MASTER_PORT

  step environment "preparing the environment"
  if [ "$INSTALL" = 1 ]; then use_locked_environment; fi
  install_plugins
  export_environment
  stop_after environment
  if [ "$UPLOAD" = 1 ]; then
    [ "$PLAN_UPLOADS" = 1 ] || fail 2 "--upload: this bundle's spec names no upload_to"
    step upload "uploading what is not on the store yet"
    runtime upload
    exit 0
  fi

  step preflight "checking this machine"
  runtime preflight
  stop_after preflight
  if uses_store; then fetch; fi

  step prepare "preparing the data"
  runtime prepare
  stop_after prepare

  step train "training: $PLAN_NODES x $PLAN_PROCESSES_PER_NODE processes on $PLAN_DEVICE"
  train

  if is_first_host; then
    step finish "finishing: merge, samples, figures"
    runtime finish
  fi
  if uses_store; then upload_rest; fi
  say "done"
}

main "$@"
