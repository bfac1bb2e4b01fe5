#!/usr/bin/env bash
# Makes .venv-engines: what the files of targets are checked with (tools/engines.lock). Safe to call again.
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=.venv-engines
digest=$(sha256sum tools/engines.lock)
if [ "$(cat "$folder/.complete" 2>/dev/null || true)" = "$digest" ]; then exit 0; fi
rm -rf "$folder"
.venv/bin/python -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
  --only-binary :all: --no-compile -r tools/engines.lock
printf '%s\n' "$digest" >"$folder/.complete"
