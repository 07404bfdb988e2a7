#!/usr/bin/env bash
# End to end: the unmodified SDKs send to the quickstart, and the profile, read with
# curl, counts every event exactly once.
set -euo pipefail
cd "$(dirname "$0")/../.."

port() { node -e 'const s = require("net").createServer(); s.listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'; }
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
export PROFILE_DIR=$data/profiles DATA_DIR=$data SHOP_RATE=5
export PROFILE_API_ADDRESS=127.0.0.1:$(port) HTTP_ADDRESS=127.0.0.1:$(port)

CONFIG=configs/quickstart.yaml CHECK='
  profile=$(curl -sf "http://$PROFILE_API_ADDRESS/api/customer/$USER_ID?fields=traits,features.orders,features.revenue,features.page_views_24h")
  echo "curl /api/customer/$USER_ID: $profile"
  node tests/sdk/check_profile.mjs "$profile" "$EVENTS" "$USER_ID"
' tests/sdk/run.sh
