# shellcheck shell=bash
# The servers, and our processes on them: started, asked, watched, ended by pid. Sourced by bench/stack/run.
# shellcheck disable=SC2154 # set by run and lib.sh

place=$work/stack profiles=$work/profiles
declare -A pid=() log=() public=() admin=()
kafka='' nodes='' redis=''

begin() {
  # What a run that was killed may have left.
  tests/stack down --dir "$place" 2>/dev/null
  say "bringing up Kafka, Cassandra and Redis"
  tests/stack up --dir "$place" --kafka-heap 512m --store-heap 2g > /dev/null || fail "the servers did not come up"
  kafka=$(server_address KAFKA) nodes=$(server_address SCYLLA) redis=$(server_address REDIS)
  watched=(--process "kafka=$(server_pid kafka-1)" --process "store=$(server_pid store-1)" --process "redis=$(server_pid redis)")
}
server_address() { sed -n "s/^TALLYMARK_TEST_$1=//p" "$place/env"; }
server_pid() { cat "$place/$1/pid"; }

end() {
  local name
  for name in "${!pid[@]}"; do stop "$name"; done
  tests/stack down --dir "$place" || true
}

# A topic and a keyspace that nothing has touched: `topic` and `keyspace` name them. The ones before are removed, so that
# neither disk nor Cassandra's memory fills up.
number=0 topic='' keyspace=''
fresh() {
  close_doors
  clear_away
  name_anew
  local where=(--log "kafka://$kafka/$topic" --store "scylla://$nodes/$keyspace")
  "$binary" schema apply "${where[@]}" --set store.replication=1 > /dev/null || fail "the schema was not applied"
  "$binary" topic create "${where[@]}" --set log.replication=1 --set log.partitions=8 > /dev/null || fail "the topic was not made"
}
fresh_plain() {
  close_doors
  clear_away
  name_anew
  create_plain
}
create_plain() {
  "$plain" create --brokers "$kafka" --topic "$topic" --nodes "$nodes" --keyspace "$keyspace" || fail "the plain topic and table were not made"
}
name_anew() {
  number=$((number + 1))
  topic=bench-$number keyspace=bench_$number
  old+=("$topic $keyspace")
}
old=()
clear_away() {
  local pair
  for pair in "${old[@]}"; do
    "$plain" delete --brokers "$kafka" --topic "${pair% *}" --nodes "$nodes" --keyspace "${pair#* }" || say "$pair was not removed"
  done
  old=()
}

# launch NAME COMMAND…: starts a process of ours under this name.
launch() {
  local name=$1
  shift
  log[$name]=$work/stack-$name.log
  # Before it runs: it is read as soon as this returns.
  : > "${log[$name]}"
  "$@" > "${log[$name]}" 2>&1 &
  pid[$name]=$!
}
# listens NAME WHAT: waits until it has said where, and prints that.
listens() {
  local left=300 where=''
  until where=$(address "${log[$1]}" "$2") && [ -n "$where" ]; do
    alive "$1"
    [ $((left -= 1)) -gt 0 ] || fail "$1 does not listen after 30 s; its log is ${log[$1]}"
    sleep 0.1
  done
  echo "$where"
}
alive() { kill -0 "${pid[$1]}" 2>/dev/null || { tail -n 5 "${log[$1]}" >&2; fail "$1 has ended; its log is ${log[$1]}"; }; }
stop() {
  [ -n "${pid[$1]:-}" ] || return 0
  finish "${pid[$1]}"
  unset "pid[$1]"
}

# The URL of a hot view: `redis` or `none`.
hot_url() { if [ "$1" = redis ]; then echo "redis://$redis"; else echo none:; fi; }
# ours ROLE NAME HOT FLAG…: our ingest or worker, not awaited.
ours() {
  local role=$1 name=$2 hot=$3
  shift 3
  launch "$name" "$binary" run "$role" --log "kafka://$kafka/$topic" --store "scylla://$nodes/$keyspace" --hot "$(hot_url "$hot")" \
    --set "hot.prefix=bench$number" --log-format json --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 "${settings[@]}" "$@"
  admin[$name]=$(listens "$name" admin)
}
start_ingest() { # NAME HOT FLAG…
  local name=$1
  ours ingest "$@"
  public[$name]=$(listens "$name" http)
  local left=300
  until ready "${admin[$name]}"; do
    alive "$name"
    [ $((left -= 1)) -gt 0 ] || fail "$name was not ready in 30 s; its log is ${log[$name]}"
    sleep 0.1
  done
}
start_plain_ingest() { # NAME FLAG…
  local name=$1
  shift
  launch "$name" "$plain" ingest --brokers "$kafka" --topic "$topic" "$@"
  public[$name]=$(listens "$name" http)
}

# load NAME SECONDS ARG…: runs the load on an ingest; `field` then answers.
load() {
  local name=$1 length=$2
  shift 2
  answer=$(timeout $((length + warmup + 60)) "$loader" --url "http://${public[$name]}" --connections 256 --json \
    --process "ingest=${pid[$name]}" "${watched[@]}" --seconds "$length" --warmup "$warmup" "$@") || fail "the load generator failed: $loader $*"
  holds "$(field items_s) > 0" || fail "$name accepted nothing ($(field statuses)); its log is ${log[$name]}"
}
# asked ARG…: what the other watcher answers; `field` then answers.
asked() {
  answer=$(timeout 300 "$asker" "$@") || fail "the watcher failed: $asker $*"
}

# profiled LABEL PID DELAY SECONDS: looks at the whole machine beside what comes next, after the delay; `report_profile` ends
# it and writes who ran, and in which functions our process did. Only beside loads that are not counted.
profiler='' profile_label='' profile_pid=''
profiled() {
  $profile || return 0
  mkdir -p "$profiles"
  (sleep "$3" && exec perf record -q -F 299 -a -g -o "$profiles/$1.data" -- sleep "$4" > /dev/null 2>&1) &
  profiler=$! profile_label=$1 profile_pid=$2
}
report_profile() {
  [ -n "$profiler" ] || return 0
  wait "$profiler" || true
  profiler=''
  local report=(perf report -i "$profiles/$profile_label.data" --no-children -g none --stdio)
  {
    echo "who ran: share of all samples, program, thread"
    "${report[@]}" --sort pid,comm | listed 30
    echo "our process: share of all samples, symbol"
    "${report[@]}" --pid "$profile_pid" --sort symbol | listed 50
    echo "our process: share of all samples, thread"
    "${report[@]}" --pid "$profile_pid" --sort comm | listed 10
  } 2> /dev/null > "$profiles/$profile_label.txt"
}
listed() { # so many of a report's lines; it reads them all, so that nothing is written to a pipe that has ended
  awk -v most="$1" '/^#/ || /^$/ { next } seen++ < most { sub(/[ -]*$/, ""); print }'
}
