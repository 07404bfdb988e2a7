#!/usr/bin/env bash
# Compares features with a naive computation over CASES random histories, and
# runs concurrent writers and failing stores on a twentieth as many. Each rapid
# property of the two packages gets these counts.
set -euo pipefail
cd "$(dirname "$0")/../.."

export CASES=${CASES:-10000}
go test -count=1 -timeout 30m ./plugins/engine/record -rapid.checks="$CASES"
go test -count=1 -timeout 30m ./plugins/engine/customers -rapid.checks=$((CASES / 20 + 1))
echo "$CASES histories agree with the naive computation"
