#!/usr/bin/env bash
# Installs the packages of a folder's lock file unless they are up to date. Not
# `npm ci`: it refuses a lock file without the optional packages of other
# platforms, and not every registry has those.
set -euo pipefail
cd "$(dirname "$0")/../../${1:?usage: npm.sh FOLDER}"

if [ ! node_modules -nt package-lock.json ]; then
  npm install --no-save --ignore-scripts --no-audit --no-fund
  touch node_modules
fi
