# shellcheck shell=bash
# shellcheck disable=SC2034 # PYTHON and PLUGIN_PATH are read by launch.sh
# Sourced by launch.sh: makes or reuses the environment of requirements.lock, and installs the bundle's plugins.
# A folder is complete once it holds .axoc-complete, written last; a half-made one is made again.

readonly CPU_INDEX=https://download.pytorch.org/whl/cpu
readonly CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/axoc

# Sets PYTHON to the environment's interpreter.
use_locked_environment() {
  local name folder
  [ "$PLAN_PROFILE" != rocm ] || fail 11 "no torch for ROCm is pinned: install it, then run with --no-install"
  name=$(helper lock-digest)
  folder=${AXOC_ENV_DIR:-$CACHE/envs/$name}
  if [ "$DRY_RUN" = 1 ]; then
    say "environment: would make or reuse $folder"
  else
    lock_folder "$folder"
    [ "$(cat "$folder/.axoc-complete" 2>/dev/null || true)" = "$name" ] || make_environment "$folder" "$name"
    exec 9>&-
    say "environment: $folder"
  fi
  PYTHON=$folder/bin/python
}

# Two launches at once: the second waits, then finds the folder complete.
lock_folder() {
  mkdir -p "$(dirname "$1")" || fail 11 "cannot make $(dirname "$1")"
  exec 9>"$1.lock" || fail 11 "cannot write $1.lock"
  helper wait-for-lock || fail 11 "cannot lock $1.lock"
}

make_environment() {
  local folder=$1 name=$2 parts
  start_folder "$folder"
  say "environment: making $folder (several minutes the first time)"
  run_watched "$PYTHON" -m venv "$folder" || fail 11 "python -m venv failed: is its venv package installed?"
  parts=$folder/.axoc-locks
  mkdir -p "$parts"
  helper split-lock "$parts"
  install_torch "$folder/bin/python" "$parts/torch.txt"
  install "$folder/bin/python" --only-binary :all: -r "$parts/wheels.txt" || fail 11 "pip could not install the lock"
  install_sources "$folder/bin/python" "$parts/sources.txt"
  printf '%s\n' "$name" >"$folder/.axoc-complete"
}

# Deletes what an earlier attempt left; never a folder that is not ours.
start_folder() {
  if [ -d "$1" ] && [ -n "$(ls -A "$1")" ] && [ ! -e "$1/.axoc-started" ]; then
    fail 11 "$1 is not an environment that axoc made: empty it, or name another with AXOC_ENV_DIR"
  fi
  rm -rf "$1"
  mkdir -p "$1"
  : >"$1/.axoc-started"
}

install() {
  local python=$1
  shift
  run_watched "$python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes "$@"
}

# pip as it is configured first; then, for the CPU, torch's own index of CPU builds.
install_torch() {
  install "$1" --only-binary :all: -r "$2" 2>"$2.log" && return
  if [ "$PLAN_PROFILE" = cpu ]; then
    say "environment: taking torch's CPU build from $CPU_INDEX"
    install "$1" --only-binary :all: --extra-index-url "$CPU_INDEX" -r "$2" && return
  fi
  cat "$2.log" >&2
  fail 11 "pip could not install torch"
}

# Built with what is now installed, and without compiling DeepSpeed's kernels.
install_sources() {
  export DS_BUILD_OPS=0
  if [ "$PLAN_DEVICE" = cpu ]; then export DS_ACCELERATOR=cpu; fi
  install "$1" --no-build-isolation -r "$2" || fail 11 "pip could not build $(basename "$2")"
}

# Plugins go into a folder of their own, so that neither the shared environment nor the user's is changed.
# Sets PLUGIN_PATH.
install_plugins() {
  local folder name
  PLUGIN_PATH=
  [ -d "$BUNDLE/plugins" ] || return 0
  name=$(helper plugins-digest)
  folder=$CACHE/plugins/$name
  PLUGIN_PATH=$folder
  if [ "$DRY_RUN" = 1 ]; then
    say "plugins: would make or reuse $folder"
    return 0
  fi
  lock_folder "$folder"
  [ "$(cat "$folder/.axoc-complete" 2>/dev/null || true)" = "$name" ] || copy_and_install_plugins "$folder" "$name"
  exec 9>&-
  say "plugins: $folder"
}

# From a copy: a build writes into its source folder, and the bundle must stay as it is.
copy_and_install_plugins() {
  local folder=$1 name=$2 plugin
  start_folder "$folder"
  cp -R "$BUNDLE/plugins" "$folder/.sources"
  for plugin in "$folder"/.sources/*/; do
    run_watched "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-index \
      --no-build-isolation --target "$folder" --upgrade "$plugin" || fail 11 "pip could not install $(basename "$plugin")"
  done
  rm -rf "$folder/.sources"
  printf '%s\n' "$name" >"$folder/.axoc-complete"
}
