#!/usr/bin/env bash
# A Redis Cluster for tests: three primaries with a replica each, on loopback.
#
#   redis_cluster.sh start [NAME]          starts it and prints its addresses,
#                                          separated by commas
#   redis_cluster.sh stop [NAME]           stops it and removes its data
#   redis_cluster.sh addrs [NAME]          prints the addresses
#   redis_cluster.sh nodes [NAME]          prints address, role and pid by line
#   redis_cluster.sh kill [NAME] PORT      kill -9 of one node
#   redis_cluster.sh restart [NAME] PORT   starts it again with its data
#   redis_cluster.sh failover [NAME]       fails a primary over to its replica and
#                                          waits until the replica has taken over
#
# When REDIS_CLUSTER is set (addresses, separated by commas) that cluster is
# used and nothing is started or stopped. SERVICES_DIR is the folder for data.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { die "use: redis_cluster.sh start|stop|addrs|nodes|kill|restart|failover [NAME] [PORT]"; }

cli() { redis-cli -h 127.0.0.1 "$@"; }

launch() {
  local dir="$1" port="$2"
  spawn "$dir/$port" redis-server "$dir/$port/redis.conf"
  wait_for 20 node answers "$port" || die "node $port is not ready: $(tail -5 "$dir/$port/log")"
}

answers() { [[ "$(cli -p "$1" ping)" == PONG ]]; }

# whole succeeds if every node sees all slots served and three replicas.
whole() {
  local port
  while read -r port; do
    cli -p "$port" cluster info | tr -d '\r' | grep -qx 'cluster_state:ok' || return 1
    [[ "$(cli -p "$port" cluster nodes | grep -c 'slave.* connected')" == 3 ]] || return 1
  done <"$1/ports"
}

# synced succeeds if every replica follows its primary.
synced() {
  local port
  while read -r port; do
    if cli -p "$port" role | head -1 | grep -q slave; then
      cli -p "$port" info replication | tr -d '\r' | grep -qx 'master_link_status:up' || return 1
    fi
  done <"$1/ports"
}

start() {
  local dir="$1" port ports
  need_redis
  if [[ -d "$dir" ]]; then
    whole "$dir" 2>/dev/null && { addrs "$dir"; return; }
    stop "$dir"
  fi
  mkdir -p "$dir"
  free_ports 6 >"$dir/ports"
  mapfile -t ports <"$dir/ports"
  for port in "${ports[@]}"; do
    mkdir "$dir/$port"
    cat >"$dir/$port/redis.conf" <<CONF
bind 127.0.0.1
port $port
dir $dir/$port
save ""
appendonly yes
appendfsync everysec
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-announce-ip 127.0.0.1
repl-diskless-sync-delay 0
CONF
    launch "$dir" "$port"
  done
  cli --cluster create "${ports[@]/#/127.0.0.1:}" --cluster-replicas 1 --cluster-yes >"$dir/create.log" 2>&1 ||
    die "the cluster cannot be made: $(tail -5 "$dir/create.log")"
  wait_for 40 cluster whole "$dir" || die "the cluster is not whole: $(cli -p "${ports[0]}" cluster nodes)"
  wait_for 20 replicas synced "$dir" || die "the replicas do not follow"
  addrs "$dir"
}

stop() {
  local dir="$1" port
  if [[ -f "$dir/ports" ]]; then
    while read -r port; do stop_pid "$dir/$port/pid"; done <"$dir/ports"
  fi
  remove_instance "$dir"
}

addrs() {
  [[ -s "$1/ports" ]] || die "no such instance; run: redis_cluster.sh start"
  sed 's/^/127.0.0.1:/' "$1/ports" | paste -sd,
}

nodes() {
  local port role
  while read -r port; do
    role="$(cli -p "$port" role 2>/dev/null | head -1 || true)"
    echo "127.0.0.1:$port ${role:-down} $(cat "$1/$port/pid" 2>/dev/null)"
  done <"$1/ports"
}

failover() {
  local dir="$1" port
  while read -r port; do
    if [[ "$(cli -p "$port" role 2>/dev/null | head -1)" == slave ]]; then
      cli -p "$port" cluster failover >/dev/null
      wait_for 20 failover is_master "$port" || die "node $port did not take over"
      wait_for 20 cluster whole "$dir" || die "the cluster is not whole after the failover"
      echo "127.0.0.1:$port took over"
      return
    fi
  done <"$dir/ports"
  die "there is no replica to take over"
}

is_master() { [[ "$(cli -p "$1" role | head -1)" == master ]]; }

command="${1:-}"
[[ $# -gt 0 ]] && shift
name=default
# A word that is no port is a name.
[[ $# -gt 0 && ! "$1" =~ ^[0-9]+$ ]] && { name="$1"; shift; }
port="${1:-}"

if [[ -n "${REDIS_CLUSTER:-}" ]]; then
  case "$command" in
    start | addrs) echo "$REDIS_CLUSTER" ;;
    stop) ;;
    *) die "$command: the cluster of REDIS_CLUSTER is not ours to touch" ;;
  esac
  exit
fi

dir="$(instance_dir redis-cluster "$name")"
case "$command" in
  start) start "$dir" ;;
  stop) stop "$dir" ;;
  addrs) addrs "$dir" ;;
  nodes) nodes "$dir" ;;
  kill | restart)
    [[ -d "$dir/$port" && -n "$port" ]] || die "$command: name a port of: $(addrs "$dir")"
    if [[ "$command" == kill ]]; then
      kill -9 "$(cat "$dir/$port/pid")"
    else
      stop_pid "$dir/$port/pid"
      launch "$dir" "$port"
    fi
    ;;
  failover) failover "$dir" ;;
  *) usage ;;
esac
