#!/usr/bin/env bash
# One redis-server for tests, on loopback.
#
#   redis.sh start [NAME] [everysec|always|off] [-- REDIS-SERVER OPTIONS]
#                             starts it and prints its URL; the append-only
#                             file syncs in this mode (default everysec)
#   redis.sh restart [NAME]   starts it again on the same port with its data
#   redis.sh stop [NAME]      stops it and removes its data
#   redis.sh kill [NAME]      kill -9, data stays
#   redis.sh url|pid [NAME]   prints the URL or the process id
#
# When REDIS_URL is set that server is used: start and url print it, and
# nothing is started, stopped or killed. SERVICES_DIR is the folder for data.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { die "use: redis.sh start|restart|stop|kill|url|pid [NAME] [everysec|always|off] [-- OPTIONS]"; }

launch() {
  local dir="$1"
  spawn "$dir" redis-server "$dir/redis.conf"
  wait_for 20 redis ready "$(cat "$dir/port")" || die "redis-server is not ready: $(tail -5 "$dir/log")"
}

# A server that requires a password is ready too.
ready() { redis-cli -h 127.0.0.1 -p "$1" ping 2>&1 | grep -qE "^PONG|NOAUTH"; }

start() {
  local dir="$1" sync="$2"
  shift 2
  need_redis
  if [[ -d "$dir" ]]; then
    [[ -s "$dir/pid" ]] && alive "$(cat "$dir/pid")" && { url "$dir"; return; }
    remove_instance "$dir"
  fi
  mkdir -p "$dir"
  free_ports 1 >"$dir/ports"
  head -1 "$dir/ports" >"$dir/port"
  {
    echo "bind 127.0.0.1"
    echo "port $(cat "$dir/port")"
    echo "dir $dir"
    echo "save \"\""
    if [[ "$sync" == off ]]; then echo "appendonly no"; else printf 'appendonly yes\nappendfsync %s\n' "$sync"; fi
    local option
    for option in "$@"; do echo "$option"; done
  } >"$dir/redis.conf"
  launch "$dir"
  url "$dir"
}

url() {
  [[ -s "$1/port" ]] || die "no such instance; run: redis.sh start"
  echo "redis://127.0.0.1:$(cat "$1/port")"
}

command="${1:-}"
[[ $# -gt 0 ]] && shift
name=default
[[ $# -gt 0 && "$1" != -- ]] && { name="$1"; shift; }
sync=everysec
[[ $# -gt 0 && "$1" != -- ]] && { sync="$1"; shift; }
[[ "${1:-}" == -- ]] && shift
[[ "$sync" =~ ^(everysec|always|off)$ ]] || usage

if [[ -n "${REDIS_URL:-}" ]]; then
  case "$command" in
    start | restart | url) echo "$REDIS_URL" ;;
    stop | kill) ;;
    *) usage ;;
  esac
  exit
fi

dir="$(instance_dir redis "$name")"
case "$command" in
  start) start "$dir" "$sync" "$@" ;;
  restart)
    [[ -d "$dir" ]] || die "no such instance; run: redis.sh start $name"
    stop_pid "$dir/pid"
    launch "$dir"
    url "$dir"
    ;;
  stop)
    stop_pid "$dir/pid"
    remove_instance "$dir"
    ;;
  kill) kill -9 "$(cat "$dir/pid")" ;;
  url) url "$dir" ;;
  pid) cat "$dir/pid" ;;
  *) usage ;;
esac
