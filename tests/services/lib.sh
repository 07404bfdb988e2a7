# Shared by the scripts here: state folders, free ports, bounded waits.
# An instance is a folder below $SERVICES_DIR with its data, log and pids.

set -euo pipefail

services_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
SERVICES_DIR="${SERVICES_DIR:-${TMPDIR:-/tmp}/connect-personalize-services.$UID}"

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# instance_dir SERVICE NAME prints the folder of an instance.
instance_dir() {
  [[ "$2" =~ ^[a-zA-Z0-9._-]+$ ]] || die "instance name '$2': use letters, digits, dot, dash and underscore"
  echo "$SERVICES_DIR/$1-$2"
}

# free_ports N prints N free loopback ports from 20000 on and reserves them, as other
# scripts may run at the same time. Ports stay below 32768, where the kernel begins to
# assign ports to clients; a Redis Cluster node also uses its port + 10000.
free_ports() {
  mkdir -p "$SERVICES_DIR/ports"
  local n="$1" port found=0 tries=0
  while ((found < n)); do
    ((++tries < 2000)) || die "no $n free ports"
    port=$((20000 + RANDOM % 2700))
    # Only one script can create a folder.
    mkdir "$SERVICES_DIR/ports/$port" 2>/dev/null || continue
    if port_open "$port" || port_open $((port + 10000)); then
      rmdir "$SERVICES_DIR/ports/$port"
      continue
    fi
    echo "$port"
    found=$((found + 1))
  done
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_for SECONDS CONDITION COMMAND... waits until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

alive() { kill -0 "$1" 2>/dev/null; }

# spawn DIR COMMAND... runs a command in a folder and a session of its own, with
# its output in DIR/log and its process id in DIR/pid.
spawn() {
  local dir="$1"
  shift
  (cd "$dir" && exec setsid "$@") >>"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
}

# stop_pid FILE ends the process of a pid file: SIGTERM, then SIGKILL after 10 s.
stop_pid() {
  local file="$1" pid
  [[ -s "$file" ]] || return 0
  pid="$(cat "$file")"
  # Another process may have the pid by now.
  if alive "$pid" && [[ "$(readlink "/proc/$pid/cwd")" == "$(realpath "$(dirname "$file")")" ]]; then
    kill "$pid" 2>/dev/null || true
    wait_for 10 end not_alive "$pid" || kill -9 "$pid" 2>/dev/null || true
    wait_for 5 end not_alive "$pid" || die "process $pid does not end"
  fi
  rm -f "$file"
}

not_alive() { ! alive "$1"; }

# remove_instance DIR forgets an instance and gives back its ports.
remove_instance() {
  local dir="$1" port
  if [[ -f "$dir/ports" ]]; then
    while read -r port; do rmdir "$SERVICES_DIR/ports/$port" 2>/dev/null || true; done <"$dir/ports"
  fi
  rm -rf "$dir"
}

# need_redis installs redis-server from the distribution if it is missing.
need_redis() {
  command -v redis-server >/dev/null && command -v redis-cli >/dev/null && return
  command -v apt-get >/dev/null || die "redis-server is not installed; install it with your package manager"
  local sudo=()
  ((UID == 0)) || sudo=(sudo -n)
  echo "installing redis-server" >&2
  # The package would start a server of its own on the default port.
  local policy=/usr/sbin/policy-rc.d made=
  if [[ ! -e "$policy" ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod +x "$policy"
    made=1
  fi
  local status=0
  {
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server ||
      { "${sudo[@]}" apt-get update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server; }
  } >&2 || status=$?
  [[ -z "$made" ]] || "${sudo[@]}" rm -f "$policy"
  ((status == 0)) || die "redis-server cannot be installed"
}
