# shellcheck shell=bash
# shellcheck disable=SC2034 # FORWARDED and WHERE are read by launch.sh
# Sourced by launch.sh: what targets need to submit a run, and to say where its nodes meet.

# What goes with the job to its workers.
forwarded_options() {
  FORWARDED=()
  [ "$LAST_STEP" = train ] || FORWARDED+=("--$LAST_STEP")
  [ "$RESUME" = 0 ] || FORWARDED+=(--resume)
  [ "$FRESH" = 0 ] || FORWARDED+=(--fresh)
  [ "$INSTALL" = 1 ] || FORWARDED+=(--no-install)
  [ "$ALLOW_ALTERED" = 0 ] || FORWARDED+=(--allow-altered)
  [ -z "$GIVEN_PYTHON" ] || FORWARDED+=(--python "$GIVEN_PYTHON")
  [ -z "$BASE_DIR" ] || FORWARDED+=(--base-dir "$AXOC_BASE_DIR")
}

# Of engines that take a file and no options, and start it again by themselves.
takes_no_options() {
  if [ "$FRESH$ALLOW_ALTERED$LAST_STEP" != 00train ]; then
    fail 2 "$PLAN_TARGET passes no options on, and starts the run again by itself, always going on from what is there: leave out --fresh, --allow-altered, --preflight and --prepare"
  fi
}

# need COMMAND WHOSE FIX: a dry run shows what would be, whatever is installed.
need() {
  [ "$DRY_RUN" = 1 ] || command -v "$1" >/dev/null || fail 11 "$1 is not there, $2 command line: $3"
}

# Of a dry run: the file that would be submitted.
show_file() {
  local line
  [ "$DRY_RUN" = 1 ] || return 0
  say "$1:"
  while IFS= read -r line; do printf '  %s\n' "$line"; done <"$1"
}

# run_in FOLDER COMMAND...
run_in() {
  local folder=$1
  shift
  if [ "$DRY_RUN" = 1 ]; then printf '  cd %q &&' "$folder"; else cd "$folder" || exit; fi
  run_watched "$@"
}

require_rendezvous() {
  local name
  [ "$PLAN_NODES" -gt 1 ] || return 0
  for name in NODE_RANK MASTER_ADDR MASTER_PORT; do
    [ -n "${!name:-}" ] || shown_as_name "$name" ||
      fail 2 "the plan has $PLAN_NODES nodes: set NODE_RANK (0 to $((PLAN_NODES - 1))), MASTER_ADDR and MASTER_PORT on each; $name is not set"
  done
  [ "${NNODES:-$PLAN_NODES}" = "$PLAN_NODES" ] || fail 12 "NNODES is $NNODES, the plan was made for $PLAN_NODES nodes"
}

# Of a dry run, which needs no host's own values: what is not set stands there by its name.
shown_as_name() {
  [ "$DRY_RUN" = 1 ] || return 1
  say "$1 is not set: each host has its own"
  printf -v "$1" '%s' "<$1>"
}

# Where torchrun's ranks meet. With c10d hosts that are lost are waited for, and all start again when one has come.
rendezvous() {
  local dynamic=0
  if [ "${PLAN_RENDEZVOUS:-static}" = c10d ]; then dynamic=1; fi
  if [ "$PLAN_NODES" -eq 1 ]; then
    WHERE=(--standalone --nnodes 1)
  elif [ "$dynamic" = 1 ]; then
    WHERE=(--nnodes "$PLAN_NODES" --rdzv_backend c10d --rdzv_endpoint "$MASTER_ADDR:$MASTER_PORT" --rdzv_id axoc)
  else
    WHERE=(--nnodes "$PLAN_NODES" --node_rank "$NODE_RANK" --rdzv_backend static
      --rdzv_endpoint "$MASTER_ADDR:$MASTER_PORT" --rdzv_id axoc)
  fi
  if [ "$dynamic" = 1 ]; then WHERE+=(--max_restarts "$PLAN_RETRIES"); fi
}
