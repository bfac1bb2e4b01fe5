#!/usr/bin/env bash
# Is every bundle what its spec gives now, and do its files agree with each other? Exit 3 where not.
# Usage: ci/axoc-check.sh [SPEC=BUNDLE ...], by default spec.yaml=bundle. Limits of the organisation: AXOC_POLICY.
set -uo pipefail
cd "$(git rev-parse --show-toplevel)" || exit 2
status=0
[ $# -gt 0 ] || set -- spec.yaml=bundle
for pair in "$@"; do
  axoc verify "${pair#*=}" || status=$?
  axoc plan "${pair%%=*}" --check --out "${pair#*=}" || status=$?
done
exit "$status"
