#!/usr/bin/env bash
# A Redis primary with a replica and three Sentinels for tests, on loopback.
# The Sentinels know the primary as "profiles".
#
#   redis_sentinel.sh start [NAME]      starts them and prints the Sentinels'
#                                       addresses, separated by commas
#   redis_sentinel.sh stop [NAME]       stops them and removes their data
#   redis_sentinel.sh addrs [NAME]      prints the Sentinels' addresses
#   redis_sentinel.sh primary [NAME]    prints the address of the primary
#   redis_sentinel.sh failover [NAME]   fails over to the replica and waits until
#                                       it has taken over
#
# When REDIS_SENTINEL is set (addresses, separated by commas) those are used
# and nothing is started or stopped. SERVICES_DIR is the folder for data.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { die "use: redis_sentinel.sh start|stop|addrs|primary|failover [NAME]"; }

cli() { redis-cli -h 127.0.0.1 "$@"; }

answers() { [[ "$(cli -p "$1" ping)" == PONG ]]; }

launch() {
  local dir="$1" port="$2"
  shift 2
  spawn "$dir/$port" redis-server "$dir/$port/redis.conf" "$@"
  wait_for 20 node answers "$port" || die "node $port is not ready: $(tail -5 "$dir/$port/log")"
}

# settled succeeds if every Sentinel knows the others and the replica, and the
# replica follows.
settled() {
  local port primary
  for port in "${@:3}"; do
    cli -p "$port" sentinel ckquorum profiles | grep -q '^OK 3 usable' || return 1
    cli -p "$port" sentinel replicas profiles | grep -q '^ip$' || return 1
  done
  primary="$(cli -p "$3" sentinel get-master-addr-by-name profiles | tail -1)"
  cli -p "$primary" info replication | tr -d '\r' | grep -q 'slave0:.*state=online'
}

start() {
  local dir="$1" ports port i
  need_redis
  if [[ -d "$dir" ]]; then
    addrs "$dir"
    return
  fi
  mkdir -p "$dir"
  free_ports 5 >"$dir/ports"
  mapfile -t ports <"$dir/ports"
  for i in 0 1; do
    port="${ports[$i]}"
    mkdir "$dir/$port"
    cat >"$dir/$port/redis.conf" <<CONF
bind 127.0.0.1
port $port
dir $dir/$port
save ""
appendonly yes
appendfsync everysec
repl-diskless-sync-delay 0
CONF
    ((i == 0)) || echo "replicaof 127.0.0.1 ${ports[0]}" >>"$dir/$port/redis.conf"
    launch "$dir" "$port"
  done
  for i in 2 3 4; do
    port="${ports[$i]}"
    mkdir "$dir/$port"
    cat >"$dir/$port/redis.conf" <<CONF
bind 127.0.0.1
port $port
dir $dir/$port
sentinel monitor profiles 127.0.0.1 ${ports[0]} 2
sentinel down-after-milliseconds profiles 2000
sentinel failover-timeout profiles 5000
CONF
    launch "$dir" "$port" --sentinel
  done
  wait_for 40 sentinels settled "$dir" "${ports[@]:2}" || die "the Sentinels do not agree"
  addrs "$dir"
}

stop() {
  local dir="$1" port
  if [[ -f "$dir/ports" ]]; then
    while read -r port; do stop_pid "$dir/$port/pid"; done < <(tac "$dir/ports")
  fi
  remove_instance "$dir"
}

addrs() {
  [[ -s "$1/ports" ]] || die "no such instance; run: redis_sentinel.sh start"
  tail -3 "$1/ports" | sed 's/^/127.0.0.1:/' | paste -sd,
}

primary() { cli -p "$(tail -1 "$1/ports")" sentinel get-master-addr-by-name profiles | paste -sd:; }

failover() {
  local dir="$1" before ports
  before="$(primary "$dir")"
  mapfile -t ports <"$dir/ports"
  # Sentinels refuse while the last failover is recent.
  wait_for 20 failover asked "$dir" || die "the Sentinels refuse to fail over"
  wait_for 30 failover moved "$dir" "$before" || die "the replica did not take over"
  wait_for 30 sentinels settled "$dir" "${ports[@]:2}" || die "the Sentinels do not agree after the failover"
  primary "$dir"
}

asked() { [[ "$(cli -p "$(tail -1 "$1/ports")" sentinel failover profiles)" == OK ]]; }

moved() { [[ "$(primary "$1")" != "$2" ]]; }

command="${1:-}"
name="${2:-default}"

if [[ -n "${REDIS_SENTINEL:-}" ]]; then
  case "$command" in
    start | addrs) echo "$REDIS_SENTINEL" ;;
    stop) ;;
    *) die "$command: the servers of REDIS_SENTINEL are not ours to touch" ;;
  esac
  exit
fi

dir="$(instance_dir redis-sentinel "$name")"
case "$command" in
  start) start "$dir" ;;
  stop) stop "$dir" ;;
  addrs) addrs "$dir" ;;
  primary) primary "$dir" ;;
  failover) failover "$dir" ;;
  *) usage ;;
esac
