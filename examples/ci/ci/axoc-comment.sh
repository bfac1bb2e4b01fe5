#!/usr/bin/env bash
# What the specs as they are now would change of the bundles of BASE, as Markdown for a comment.
# Usage: ci/axoc-comment.sh BASE [SPEC=BUNDLE ...], by default spec.yaml=bundle.
set -uo pipefail
cd "$(git rev-parse --show-toplevel)" || exit 2
base=$1 && shift
[ $# -gt 0 ] || set -- spec.yaml=bundle
for pair in "$@"; do
  spec=${pair%%=*} bundle=${pair#*=} code=0
  said=$(axoc diff "$base:$bundle" "$spec" --bundle "$bundle" --format markdown 2>&1) || code=$?
  case $code in
    0) printf '**%s**: the plan is the same.\n\n' "$spec" ;;
    3) printf '%s\n\n' "$said" ;;
    *) printf '**%s** cannot be planned:\n\n```\n%s\n```\n\n' "$spec" "$said" ;;
  esac
done
