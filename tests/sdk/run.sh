#!/usr/bin/env bash
# Sends events with the unmodified SDKs of Segment and RudderStack to a running
# collector and checks that exactly those arrive.
#
#   BIN     the program to test          (default ./bin/connect-personalize)
#   CONFIG  the pipeline to run          (default tests/sdk/collect.yaml)
#   CHECK   the command that checks      (default node tests/sdk/check.mjs ...)
#   EVENTS  number of events of each SDK (default 500)
#
# Another CONFIG must listen on ${COLLECTOR_ADDRESS} and accept ${WRITE_KEY};
# OUTPUT_DIR is a folder for its files, removed at the end. It needs a CHECK of its
# own, which runs in the project's folder after the SDKs have delivered all events
# and before the pipeline stops, with these variables, USER_ID and EVENTS. It can,
# for example, read the profile with curl.
set -euo pipefail
cd "$(dirname "$0")/../.."

BIN=${BIN:-./bin/connect-personalize}
CONFIG=${CONFIG:-tests/sdk/collect.yaml}
export EVENTS=${EVENTS:-500}
export USER_ID=${USER_ID:-sdk-suite-customer}
export WRITE_KEY=${WRITE_KEY:-sdk-suite-key}
CHECK=${CHECK:-node tests/sdk/check.mjs "\$OUTPUT_DIR" "\$EVENTS" "\$USER_ID" sdk_suite}

if [ ! -x "$BIN" ]; then
  echo "$BIN does not exist: run make build, or set BIN" >&2
  exit 2
fi
if [ ! -d tests/sdk/node_modules ]; then
  (cd tests/sdk && npm install --no-save --ignore-scripts --no-audit --no-fund)
fi

free_port='const s = require("net").createServer(); s.listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'
export COLLECTOR_ADDRESS=${COLLECTOR_ADDRESS:-127.0.0.1:$(node -e "$free_port")}
OUTPUT_DIR=$(mktemp -d)
export OUTPUT_DIR
log=$OUTPUT_DIR/pipeline.log

"$BIN" run "$CONFIG" >"$log" 2>&1 &
pipeline=$!
finish() {
  status=$?
  if kill -TERM "$pipeline" 2>/dev/null; then
    wait "$pipeline" || true
  fi
  if [ "$status" -ne 0 ]; then
    echo "--- log of the pipeline" >&2
    cat "$log" >&2
  fi
  rm -rf "$OUTPUT_DIR"
}
trap finish EXIT

ready() { curl -s -o /dev/null "http://$COLLECTOR_ADDRESS/"; }
for _ in $(seq 300); do
  if ready; then break; fi
  if ! kill -0 "$pipeline" 2>/dev/null; then
    echo "the pipeline ended before it was ready" >&2
    exit 1
  fi
  sleep 0.1
done
ready || { echo "the collector does not listen on $COLLECTOR_ADDRESS" >&2; exit 1; }

node tests/sdk/send.mjs "http://$COLLECTOR_ADDRESS" "$WRITE_KEY" "$EVENTS" "$USER_ID"
# Delivered events are stored, so the check need not wait.
bash -c "$CHECK"

kill -TERM "$pipeline"
wait "$pipeline"
echo "the pipeline stopped cleanly"
