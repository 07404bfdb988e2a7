#!/usr/bin/env bash
# One Apache Kafka broker for tests: KRaft mode, on loopback, with the jars of
# Maven Central (cached in .cache/kafka) and the machine's Java (17 or later).
#
#   kafka.sh start [NAME] [-- SERVER.PROPERTIES LINES]   starts it and prints
#                                its address; topics are created on first use
#   kafka.sh restart [NAME]      starts it again on the same port with its data
#   kafka.sh stop [NAME]         stops it and removes its data
#   kafka.sh kill [NAME]         kill -9, data stays
#   kafka.sh seeds|pid [NAME]    prints the address or the process id
#   kafka.sh topic [NAME] TOPIC PARTITIONS   creates a topic
#   kafka.sh fetch               only fetches the jars
#
# When KAFKA_SEEDS is set that broker is used: start and seeds print it, and
# nothing is started, stopped or killed. SERVICES_DIR is the folder for
# data, KAFKA_VERSION the version, KAFKA_HEAP the heap size (512m).
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

KAFKA_VERSION="${KAFKA_VERSION:-4.1.1}"
cache="$services_root/.cache/kafka/$KAFKA_VERSION"

usage() { die "use: kafka.sh start|restart|stop|kill|seeds|pid|topic|fetch [NAME] ..."; }

fetch() {
  [[ -f "$cache/complete" ]] && return
  command -v java >/dev/null || die "java is not installed; install a JDK or JRE 17"
  command -v mvn >/dev/null || die "mvn is not installed; it fetches Kafka from Maven Central"
  echo "fetching Kafka $KAFKA_VERSION" >&2
  mkdir -p "$cache"
  cat >"$cache/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$KAFKA_VERSION</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$KAFKA_VERSION</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
POM
  timeout 600 mvn -q -B -f "$cache/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$cache/libs" >&2 || die "Kafka $KAFKA_VERSION cannot be fetched"
  touch "$cache/complete"
}

# The heap of the tools and the broker; logs go to the instance's log file.
kafka_java() { echo "-Xmx${KAFKA_HEAP:-512m} -XX:+UseG1GC -XX:TieredStopAtLevel=1 -cp $cache/libs/* -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info"; }

ready() {
  port_open "$1" && grep -q 'Kafka Server started' "$2/log"
}

launch() {
  local dir="$1"
  : >"$dir/log"
  set -f # the class path ends in a star that is Java's to read
  # shellcheck disable=SC2046
  spawn "$dir" java $(kafka_java) kafka.Kafka "$dir/server.properties"
  set +f
  wait_for 60 kafka ready "$(head -1 "$dir/ports")" "$dir" || die "Kafka is not ready: $(tail -5 "$dir/log")"
}

start() {
  local dir="$1" ports
  shift
  fetch
  if [[ -d "$dir" ]]; then
    [[ -s "$dir/pid" ]] && alive "$(cat "$dir/pid")" && { seeds "$dir"; return; }
    remove_instance "$dir"
  fi
  mkdir -p "$dir"
  free_ports 2 >"$dir/ports"
  mapfile -t ports <"$dir/ports"
  cat >"$dir/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${ports[1]}
listeners=PLAINTEXT://127.0.0.1:${ports[0]},CONTROLLER://127.0.0.1:${ports[1]}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports[0]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=true
CONF
  local line
  for line in "$@"; do echo "$line" >>"$dir/server.properties"; done
  local id
  id="$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')"
  set -f
  # shellcheck disable=SC2046
  (cd "$dir" && java $(kafka_java) kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties") >"$dir/format.log" 2>&1 ||
    die "Kafka's storage cannot be formatted: $(tail -5 "$dir/format.log")"
  set +f
  launch "$dir"
  seeds "$dir"
}

seeds() {
  [[ -s "$1/ports" ]] || die "no such instance; run: kafka.sh start"
  echo "127.0.0.1:$(head -1 "$1/ports")"
}

topic() {
  set -f
  # shellcheck disable=SC2046
  java $(kafka_java) org.apache.kafka.tools.TopicCommand --bootstrap-server "$(seeds "$1")" \
    --create --if-not-exists --topic "$2" --partitions "$3" --replication-factor 1
  set +f
}

command="${1:-}"
[[ $# -gt 0 ]] && shift
name=default
if [[ "$command" == topic ]]; then
  [[ $# -eq 3 ]] && { name="$1"; shift; }
  [[ $# -eq 2 ]] || usage
else
  [[ $# -gt 0 && "$1" != -- ]] && { name="$1"; shift; }
  [[ "${1:-}" == -- ]] && shift
fi

if [[ -n "${KAFKA_SEEDS:-}" ]]; then
  case "$command" in
    start | restart | seeds) echo "$KAFKA_SEEDS" ;;
    stop | kill) ;;
    *) die "$command: the broker of KAFKA_SEEDS is not ours to touch" ;;
  esac
  exit
fi

dir="$(instance_dir kafka "$name")"
case "$command" in
  fetch) fetch ;;
  start) start "$dir" "$@" ;;
  restart)
    [[ -d "$dir" ]] || die "no such instance; run: kafka.sh start $name"
    stop_pid "$dir/pid"
    launch "$dir"
    seeds "$dir"
    ;;
  stop)
    stop_pid "$dir/pid"
    remove_instance "$dir"
    ;;
  kill) kill -9 "$(cat "$dir/pid")" ;;
  seeds) seeds "$dir" ;;
  pid) cat "$dir/pid" ;;
  topic) topic "$dir" "$@" ;;
  *) usage ;;
esac
