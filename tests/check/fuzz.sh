#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME. A number of inputs (20000x) is better than a
# duration: at the end of a duration Go reports the interrupted input as a failure
# (golang.org/issue/75804).
set -euo pipefail
cd "$(dirname "$0")/../.."

count=0
for package in $(grep -rl --include='*_test.go' '^func Fuzz' plugins | xargs -r -n1 dirname | sort -u); do
  for target in $(go test -list '^Fuzz' "./$package" | grep '^Fuzz'); do
    echo "$package $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-20000x}" "./$package"
    count=$((count + 1))
  done
done
echo "$count fuzz targets, ${FUZZTIME:-20000x} inputs each"
