#!/usr/bin/env bash
# Compares the profile API with its OpenAPI description:
#
#   run.sh fuzz     validates the description against OpenAPI's own schema, and sends
#                   requests that schemathesis generates from it
#   run.sh client   generates a client from the description, and uses it
#
#   BIN   the program to test   (default ./bin/connect-personalize)
#
# The tools are installed from PyPI into bin/contract, with the versions and hashes of
# requirements.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."

BIN=${BIN:-./bin/connect-personalize}
VENV=bin/contract/venv
LOCK=tests/contract/requirements.txt
case ${1:-} in fuzz | client) ;; *) echo "usage: $0 fuzz|client" >&2; exit 2 ;; esac
[ -x "$BIN" ] || { echo "$BIN is not there: run make build, or set BIN" >&2; exit 2; }
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "python3 is not there, or older than 3.11: install Debian's python3" >&2; exit 2; }
python3 -c 'import ensurepip, venv' 2>/dev/null || { echo "python3 cannot make virtual environments: install Debian's python3-venv" >&2; exit 2; }
if ! cmp -s "$LOCK" "$VENV/installed.txt"; then
  rm -rf "$VENV"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$LOCK"
  cp "$LOCK" "$VENV/installed.txt"
fi

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
hash() { printf %s "$1" | sha256sum | cut -c1-64; }
scratch=$(mktemp -d)
finish() {
  status=$?
  if [ -n "${pid:-}" ]; then kill -TERM "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; fi
  [ "$status" -eq 0 ] || { echo "--- the log of the program" >&2; tail -20 "$scratch/log" >&2; }
  rm -rf "$scratch"
}
trap finish EXIT

export TOKEN=everything READER=reads SIGNING_SECRET=0123456789abcdef0123456789abcdef
engine=127.0.0.1:$(port)
export PROFILE_API_ADDRESS=127.0.0.1:$(port)
export URL=http://$PROFILE_API_ADDRESS
PROFILE_API_TOKENS="[{name: all, sha256: $(hash $TOKEN), scopes: [read, write, content, erase, export, segments]}, {name: reader, sha256: $(hash $READER), scopes: [read]}]" \
  PROFILE_API_SIGNING_KEYS="[{name: newsletter, secret: $SIGNING_SECRET, fields: [traits.firstName]}]" \
  AUDIT_KEY=audit SHOP_EVENTS=3000 SHOP_START=$(date -u -d '4 days ago' +%FT%TZ) \
  PROFILE_DIR=$scratch/profiles HTTP_ADDRESS=$engine \
  "$BIN" run tests/contract/api.yaml >"$scratch/log" 2>&1 &
pid=$!

# All customers of the shop exist once all events are processed.
for _ in $(seq 300); do
  taken=$(curl -sf -H "Authorization: Bearer $TOKEN" "$URL/api/activity" | sed -n 's/.*"taken":\([0-9]*\).*/\1/p' || true)
  [ "${taken:-0}" -lt 3000 ] || break
  kill -0 "$pid" 2>/dev/null || { echo "the program has ended" >&2; exit 1; }
  sleep 0.1
done
[ "${taken:-0}" -ge 3000 ] || { echo "the profile API has not taken the shop's events in 30 s" >&2; exit 1; }

failed=0
case $1 in
fuzz)
  curl -sf "$URL/openapi.json" >"$scratch/openapi.json"
  "$VENV/bin/openapi-spec-validator" --schema 3.1 "$scratch/openapi.json" || failed=1
  timeout 240 "$VENV/bin/schemathesis" --config-file tests/contract/schemathesis.toml run --url "$URL" "$URL/openapi.json" || failed=1
  echo "Answers by route and status:"
  curl -sf "http://$engine/metrics" | sed -n 's/^profile_api_requests{.*route="\([a-z_]*\)",status="\([0-9]*\)"} /\1 \2 /p' |
    sort | awk '$1 != route { printf "%s  %-16s", (route ? "\n" : ""), $1; route = $1 } { printf " %s×%d", $2, $3 } END { print "" }'
  ;;
client)
  "$VENV/bin/python" tests/contract/client.py "$scratch" || failed=1
  ;;
esac

# After all requests the program runs, is ready, and has logged no error.
kill -0 "$pid" || { echo "the program has ended" >&2; exit 1; }
curl -sf -o /dev/null "$URL/readyz" || { echo "the program is not ready any more" >&2; failed=1; }
if grep -nE 'level=(error|fatal)|panic|goroutine [0-9]+ \[' "$scratch/log" >&2; then
  echo "the log has errors" >&2
  failed=1
fi
exit "$failed"
