#!/usr/bin/env bash
# Runs the store tests on a real Redis and a real Redis Cluster, which it starts
# and stops; it installs redis-server if necessary.
set -euo pipefail
cd "$(dirname "$0")/../.."

id=check-$$
trap 'tests/services/redis.sh stop "$id"; tests/services/redis_cluster.sh stop "$id"' EXIT
TEST_REDIS_URL=$(tests/services/redis.sh start "$id")
TEST_REDIS_CLUSTER=$(tests/services/redis_cluster.sh start "$id")
export TEST_REDIS_URL TEST_REDIS_CLUSTER
go test -count=1 ./plugins/store/redis
