#!/usr/bin/env bash
# Tests the profile explorer in headless Chromium: by keyboard, on a phone, light and
# dark, with and without tokens, with a customer that has hostile traits.
#
#   BIN       the program to test       (default ./bin/connect-personalize)
#   CHROMIUM  the browser               (default /usr/bin/chromium)
#   SHOTS     folder for screenshots      (default ./bin/explorer)
set -euo pipefail
cd "$(dirname "$0")/../.."

BIN=${BIN:-./bin/connect-personalize}
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
export SHOTS=${SHOTS:-$PWD/bin/explorer}
[ -x "$BIN" ] || { echo "$BIN is not there: run make build, or set BIN" >&2; exit 2; }
[ -x "$CHROMIUM" ] || { echo "$CHROMIUM is not there: install Debian's chromium, or set CHROMIUM" >&2; exit 2; }
if [ ! -d tests/explorer/node_modules ]; then
  (cd tests/explorer && npm install --no-save --ignore-scripts --no-audit --no-fund)
fi

port() { node -e 'const s = require("net").createServer(); s.listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'; }
scratch=$(mktemp -d)
pids=()
finish() {
  status=$?
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [ "$status" -ne 0 ]; then
    for log in "$scratch"/*.log; do echo "--- $log" >&2; tail -20 "$log" >&2; done
  fi
  rm -rf "$scratch"
}
trap finish EXIT

# The shipped blocks, and a hostile one.
cp -r configs/content "$scratch/content"
cp tests/explorer/content/*.yaml "$scratch/content"

export COLLECTOR_ADDRESS=127.0.0.1:$(port) OPEN_ADDRESS=127.0.0.1:$(port) CLOSED_ADDRESS=127.0.0.1:$(port)
CONTENT_DIR=$scratch/content PROFILE_DIR=$scratch/open DATA_DIR=$scratch SHOP_RATE=20 \
  PROFILE_API_ADDRESS=$OPEN_ADDRESS HTTP_ADDRESS=127.0.0.1:$(port) \
  "$BIN" run configs/quickstart.yaml >"$scratch/open.log" 2>&1 &
pids+=($!)

hash() { printf %s "$1" | sha256sum | cut -c1-64; }
PROFILE_API_TOKENS="[{name: marketer, sha256: $(hash reads), scopes: [read]}, {name: all, sha256: $(hash everything), scopes: [read, content]}]" \
  PROFILE_DEFINITION=configs/retail/profile.yaml PROFILE_DIR=$scratch/closed \
  PROFILE_API_ADDRESS=$CLOSED_ADDRESS HTTP_ADDRESS=127.0.0.1:$(port) \
  "$BIN" run configs/api.yaml >"$scratch/closed.log" 2>&1 &
pids+=($!)

for address in "$COLLECTOR_ADDRESS" "$OPEN_ADDRESS" "$CLOSED_ADDRESS"; do
  for _ in $(seq 300); do
    if curl -s -o /dev/null "http://$address/"; then continue 2; fi
    sleep 0.1
  done
  echo "nothing listens on $address" >&2
  exit 1
done

mkdir -p "$SHOTS" "$scratch/browser"
TMPDIR=$scratch/browser node tests/explorer/explorer.mjs
