#!/bin/sh
# Imports a log of purchases twice, serves the profiles after each time, and
# compares every customer with an independent reading of the log. Leaves
# nothing behind.
#
#   tests/cdnow/import.sh LOG [CUSTOMERS]
#
# BINARY, API and API_CONFIG override the program, the address it serves at,
# and the config it serves with.
set -eu
cd "$(dirname "$0")/../.."

log=${1:?usage: tests/cdnow/import.sh LOG [CUSTOMERS]}
customers=${2:-0}
binary=${BINARY:-bin/connect-personalize}
api=${API:-http://127.0.0.1:8081}
config=${API_CONFIG:-configs/api.yaml}

work=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" || :; fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

go build -o "$work/cdnow" ./tests/cdnow
export PROFILE_DIR="$work/profiles"
export PROFILE_API_ADDRESS="${api#http://}"
export HTTP_ADDRESS="${HTTP_ADDRESS:-127.0.0.1:0}"

for round in 1 2; do
    echo "round $round: importing $log"
    if ! TRANSACTIONS=$log "$binary" -c configs/import_transactions.yaml >"$work/import.log" 2>&1; then
        cat "$work/import.log" >&2
        exit 1
    fi
    if [ -s "$PROFILE_DIR.dead_letters.jsonl" ]; then
        echo "there are dead letters:" >&2
        head -n 3 "$PROFILE_DIR.dead_letters.jsonl" >&2
        exit 1
    fi

    "$binary" -c "$config" >"$work/api.log" 2>&1 &
    server=$!
    if ! "$work/cdnow" verify -log "$log" -api "$api" -customers "$customers" -save "$work/profiles.$round"; then
        tail -n 20 "$work/api.log" >&2
        exit 1
    fi
    kill "$server"
    wait "$server" || { echo "the server did not end cleanly" >&2; tail -n 20 "$work/api.log" >&2; server=; exit 1; }
    server=
done

cmp "$work/profiles.1" "$work/profiles.2"
echo "importing it again changed nothing"
