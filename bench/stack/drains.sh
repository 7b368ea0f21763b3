# shellcheck shell=bash
# From the log into the store: standing backlogs of increments and of events. Sourced by bench/stack/run.
# shellcheck disable=SC2154 # set by run, lib.sh and servers.sh

# fill NAME ITEMS ARG…: so many items into the log; what was accepted is in `accepted`.
accepted=0
fill() {
  local name=$1 items=$2
  shift 2
  warmup=0 load "$name" 180 --batch 100 --items "$items" "$@"
  accepted=$(calc "$(field accepted_items)" 0)
  # Without an answer nobody knows whether it counts.
  holds "$(field refused) + $(field unanswered) == 0" || fail "the backlog is not what was asked for$(trouble)"
  say "$(grouped "$accepted") items are in the log, at $(grouped "$(field items_s)")/s"
}

# drain LABEL HOT ARG…: our worker on what is in the log, until all of it is stored. With a label it is profiled.
drain() {
  local label=$1 hot=$2
  shift 2
  # What the filling left to write is written before, not beside.
  sync
  ours worker worker "$hot"
  [ -z "$label" ] || profiled "$label" "${pid[worker]}" 3 8
  asked drain --server "${admin[worker]}" --items "$accepted" --timeout 240 --process "worker=${pid[worker]}" "${watched[@]}" "$@"
  stop worker
  report_profile
}
costs_of_drain() {
  printf 'CPU µs each: Cassandra %s, Kafka %s, Redis %s, worker %s; cores: Cassandra %s, worker %s; worker %s MiB' \
    "$(calc "$(field store_us_item)" 2)" "$(calc "$(field kafka_us_item)" 2)" "$(calc "$(field redis_us_item)" 2)" \
    "$(calc "$(field worker_us_item)" 2)" "$(calc "$(field store_cores)")" "$(calc "$(field worker_cores)")" "$(calc "$(field worker_rss_max_mib)" 0)"
  others
}

# increments SERIES HOT ITEMS [LABEL]: a whole backlog, from an empty topic to the check of the total.
increments() {
  local series=$1 hot=$2 items=$3 label=${4:-} total
  fresh
  start_ingest ingest "$hot"
  fill ingest "$items" --series "$series"
  drain "$label" "$hot" --count rows=tallymark_store_rows_total --count mutations=tallymark_store_mutations_total
  total=$(get "${public[ingest]}" '/v1/counters/page_views?consistency=stored' | sed -n 's/.*"total": *\([0-9]*\).*/\1/p')
  [ "$total" = "$accepted" ] || fail "$accepted increments were accepted, and the store has ${total:-none}"
  stop ingest
}
plain_increments() { # SERIES ITEMS
  local series=$1 items=$2 total
  fresh_plain
  start_plain_ingest plain
  fill plain "$items" --series "$series"
  stop plain
  sync
  launch worker "$plain" worker --brokers "$kafka" --topic "$topic" --nodes "$nodes" --keyspace "$keyspace"
  admin[worker]=$(listens worker admin)
  asked drain --server "${admin[worker]}" --items "$accepted" --timeout 240 --applied plain_items_total --applied-is-stored \
    --process "worker=${pid[worker]}" "${watched[@]}"
  stop worker
  total=$("$plain" total --nodes "$nodes" --keyspace "$keyspace")
  [ "$total" = "$accepted" ] || say "the plain pattern: $accepted increments were accepted, and the store has $total"
}

part_backlog() {
  local series hot plain_rate load
  say "warming up: backlogs that are not shown"
  increments 100000 none "$backlog_warm" backlog
  $quick || plain_increments 100000 "$plain_warm"
  for series in "${series_of[@]}"; do
    load="16-byte ids, 3 tags, times, zipf 1.1 over $(grouped "$series") series"
    say "a standing backlog, $(grouped "$series") series"
    plain_increments "$series" "$plain_backlog"
    plain_rate=$(field items_s)
    local plain_row=("log to store, the plain pattern" "$load; $(grouped "$plain_backlog") increments" "" "$(grouped "$plain_rate")/s; $(costs_of_drain)" "")
    for hot in "${hots[@]}"; do
      increments "$series" "$hot" "$backlog"
      row "log to store, a standing backlog ($(shown "$hot"))" "$load; $(grouped "$backlog") increments, flush age 1 s" \
        "≥ 1,000,000/s, ≤ 1 µs of Cassandra's CPU" \
        "$(grouped "$(field items_s)")/s, $(calc "$(field items_s) / $plain_rate" 1) times the plain pattern; the second half applied at $(grouped "$(field second_half_items_s)")/s, all after $(calc "$(field applied_s)" 1) s, stored after $(calc "$(field seconds)" 1) s; $(grouped "$(field rows)") rows in $(grouped "$(field mutations)") mutations; $(costs_of_drain)" \
        "$(verdict "$(field items_s) >= 1000000 && $(field store_us_item) <= 1")"
    done
    row "${plain_row[@]}"
  done
}

backlog_of_events() { # subjects, events, label of a profile
  fresh
  start_ingest ingest none
  fill ingest "$2" --events --subjects "$1"
  drain "${3:-}" none --count 'rows=tallymark_store_rows_total{table="events"}'
  holds "$(field rows) == $accepted" || fail "$accepted events were accepted, and $(field rows) were stored"
  stop ingest
}

part_events() {
  local subjects what least items
  for subjects in 0 1000; do
    what='distinct subjects' least=20000 items=$events
    if [ "$subjects" != 0 ]; then what='1,000 subjects' least=60000 items=$((events * 2)); fi
    say "a backlog of events, $what"
    # A third as many before, to warm what writes events.
    $quick || backlog_of_events "$subjects" $((items / 3)) "events-$subjects"
    backlog_of_events "$subjects" "$items"
    row "events, log to store, $what" "$(grouped "$items") events with small properties, a row in both tables" "≥ $(grouped $least)/s" \
      "$(grouped "$(field items_s)")/s; $(costs_of_drain)" "$(verdict "$(field items_s) >= $least")"
  done
}
