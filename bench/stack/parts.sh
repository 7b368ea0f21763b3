# shellcheck shell=bash
# What is measured at the ingest's door: peaks, latency, how soon an increment is seen and stored. Sourced by bench/stack/run.
# shellcheck disable=SC2154 # set by run, lib.sh and servers.sh

named='16-byte ids, 3 tags, times, zipf 1.1 over 100k series'
size_of() { if [ "$1" = single ]; then echo 1; else echo 100; fi; }
what_of() { if [ "$1" = single ]; then echo "single-item requests"; else echo "items in batches of 100"; fi; }
shown() {
  case $1 in
    plain) echo "the plain pattern" ;;
    turns) echo "the plain pattern, each record sent when the one before it is acknowledged" ;;
    *) echo "--hot $1:" ;;
  esac
}

# The ingests of the closed loops and of the latency, all at once: those that are not loaded cost nothing. They stay until
# something needs a topic of its own.
doors_are_open=false
doors() {
  if $doors_are_open; then return; fi
  fresh
  local hot
  for hot in "${hots[@]}"; do start_ingest "$hot" "$hot"; done
  name_anew
  create_plain
  start_plain_ingest plain
  start_plain_ingest turns --in-turn
  doors_are_open=true
}
close_doors() {
  local name
  for name in "${hots[@]}" plain turns; do stop "$name"; done
  doors_are_open=false
}

# CPU time by process, of what was measured last.
costs() {
  printf 'CPU µs an item: ingest %s, Kafka %s, Redis %s, generator %s' "$(calc "$(field ingest_us_item)" 2)" \
    "$(calc "$(field kafka_us_item)" 2)" "$(calc "$(field redis_us_item)" 2)" "$(calc "$(field own_us_item)" 2)"
}
cores() {
  printf 'cores: ingest %s, Kafka %s, Redis %s, generator %s' "$(calc "$(field ingest_cores)" 2)" \
    "$(calc "$(field kafka_cores)" 2)" "$(calc "$(field redis_cores)" 2)" "$(calc "$(field own_cpu_s) / $(field seconds)" 2)"
}

# Peaks, in items a second, by kind and ingest; the parts that need one measure it when it is not there yet.
declare -A peak=() answers=() spread=()
# one_peak KIND NAME: a closed loop.
one_peak() {
  local kind=$1 name=$2
  load "$name" "$seconds" --batch "$(size_of "$kind")"
  say "$(what_of "$kind"), $(shown "$name"): $(grouped "$(field items_s)")/s, p99 $(calc "$(field p99_ms)" 1) ms; $(cores)$(trouble)"
  rates[$name]+="$(field items_s)"$'\n'
  answers[$name$'\n'"$(field items_s)"]=$answer
}
# peaks KIND ROUNDS INGEST…: these in turns, so many rounds; what counts is the middle one of each.
peaks() {
  local kind=$1 rounds=$2 round name names=("${@:3}")
  declare -A rates=()
  for name in "${names[@]}"; do
    if $profile; then profiled "$kind-$name" "${pid[$name]}" "$warmup" "$seconds"; fi
    load "$name" "$($profile && echo "$seconds" || echo "$warmup")" --batch "$(size_of "$kind")"
    report_profile
  done
  for ((round = 1; round <= rounds; round++)); do
    for name in "${names[@]}"; do
      # Once is enough for what is slowest.
      if [ "$name" != turns ] || [ "$round" = 1 ]; then one_peak "$kind" "$name"; fi
    done
  done
  for name in "${names[@]}"; do
    peak[$kind$name]=$(middle <<< "${rates[$name]%$'\n'}")
    answers[$kind$name]=${answers[$name$'\n'"${peak[$kind$name]}"]}
    spread[$kind$name]=$(sort -n <<< "${rates[$name]%$'\n'}" | while read -r rate; do grouped "$rate"; done | paste -sd' ')
  done
}
need_peaks() {
  [ -z "${peak[$1plain]:-}" ] || return 0
  say "the peak of $(what_of "$1") is needed first: one round"
  doors
  peaks "$1" 1 "${hots[@]}" plain
}

closed_loop() { # kind, target in words, and as a condition on `rate` and `cost`
  local kind=$1 target=$2 condition=$3 name rate names=("${hots[@]}" plain)
  [ "$kind" = single ] || names+=(turns)
  say "$(what_of "$kind"), closed loop"
  doors
  peaks "$kind" "$rounds" "${names[@]}"
  for name in "${names[@]}"; do
    answer=${answers[$kind$name]} rate=${peak[$kind$name]}
    local figure met='' aim=''
    figure="$(grouped "$rate")/s (runs: ${spread[$kind$name]})"
    if [ "$name" != plain ] && [ "$name" != turns ]; then
      figure+=", $(calc "$rate / ${peak[${kind}plain]}" 1) times the plain pattern"
      met=${condition//cost/$(field ingest_us_item)} aim=$target
      met=$(verdict "${met//rate/$rate}")
    fi
    figure+="; p50/p99/p99.9 $(calc "$(field p50_ms)" 1)/$(calc "$(field p99_ms)" 1)/$(calc "$(field p999_ms)" 1) ms; $(costs); ingest $(calc "$(field ingest_rss_max_mib)" 0) MiB$(trouble)"
    row "$(what_of "$kind"), peak ($(shown "$name"))" "$named; 256 connections, closed loop, no worker, median of $rounds" "$aim" "$figure" "$met"
  done
}
part_single() { closed_loop single '≥ 60,000/s (aim: 100,000)' 'rate >= 60000'; }
part_batch() { closed_loop batch '≥ 1,500,000/s (aim: 2,500,000), ≤ 0.8 µs of our CPU' 'rate >= 1500000 && cost <= 0.8'; }

part_latency() {
  local kind name round rate late
  for kind in "${kinds[@]}"; do
    need_peaks "$kind"
    say "latency at 60% of the peak, $(what_of "$kind")"
    doors
    declare -A p99s=() lates=() appends=() best=()
    local floors=''
    for ((round = 1; round <= latency_rounds; round++)); do
      # Nothing is loaded yet: what the cores are missing is the machine's doing.
      asked floor --seconds "$seconds" --peak "${peak[${kind}none]:-${peak[${kind}redis]}}" \
        --rate "$(calc "${peak[${kind}none]:-${peak[${kind}redis]}} * 0.6" 0)"
      floors+="$(calc "$(field p99_ms)" 2)"$'\n'
      for name in "${hots[@]}" plain; do
        # Three are enough for what has no target.
        if [ "$name" = plain ] && [ "$round" -gt 3 ]; then continue; fi
        local more=()
        [ "$name" = plain ] || more=(--histogram "append=${admin[$name]}/tallymark_log_append_seconds")
        load "$name" "$seconds" --batch "$(size_of "$kind")" --rate "$(calc "${peak[$kind$name]} * 0.6" 0)" "${more[@]}"
        p99s[$name]+="$(calc "$(field p99_ms)" 2)"$'\n' lates[$name]+="$(calc "$(field late_p99_ms)" 2)"$'\n'
        [ "$name" = plain ] || appends[$name]+="$(field append_p99_ms)"$'\n'
        best[$name$'\n'"$(calc "$(field p99_ms)" 2)"]=$answer
      done
    done
    for name in "${hots[@]}" plain; do
      rate=$(middle <<< "${p99s[$name]%$'\n'}") late=$(middle <<< "${lates[$name]%$'\n'}")
      answer=${best[$name$'\n'$rate]}
      local figure met='' target=''
      figure="$rate ms (runs: $(sort -n <<< "${p99s[$name]%$'\n'}" | paste -sd' ')); p50 and p99.9 of that run $(calc "$(field p50_ms)" 2), $(calc "$(field p999_ms)" 1) ms"
      if [ "$name" != plain ]; then
        figure+="; the broker's own share p50 $(calc "$(field append_p50_ms)" 2), p99 $(calc "$(middle <<< "${appends[$name]%$'\n'}")" 2) ms"
        if [ "$kind" = single ]; then met=$(verdict "$rate <= 10") target='≤ 10 ms'; fi
      fi
      row "p99 from due time at 60% of the peak, $(what_of "$kind") ($(shown "$name"))" \
        "$named; $(grouped "$(calc "${peak[$kind$name]} * 0.6" 0)") items/s, open loop, median of $latency_rounds" "$target" \
        "$figure; the generator late by p99 $late ms; the machine's pauses alone $(sort -n <<< "${floors%$'\n'}" | paste -sd' ') ms; $(cores)$(trouble)" "$met"
    done
  done
}

# Ingest and worker on a fresh topic.
pair() { # hot
  fresh
  start_ingest ingest "$1"
  ours worker worker "$1"
}

part_visible() {
  local what rate background load_words
  need_peaks single
  need_peaks batch
  say "how soon the hot view shows an increment"
  pair redis
  for what in light single batch; do
    background='' load_words='nothing else'
    if [ "$what" != light ]; then
      rate=$(calc "${peak[${what}redis]} * 0.5" 0) load_words="$(grouped "$rate") $(what_of "$what") a second beside it, half the peak"
      "$loader" --url "http://${public[ingest]}" --connections 256 --json --batch "$(size_of "$what")" --rate "$rate" \
        --seconds "$((seconds + 4))" --warmup 0 > "$work/stack-beside.json" &
      background=$!
      sleep 2
    fi
    asked visible --server "${public[ingest]}" --seconds "$seconds" --rate 100
    if [ -n "$background" ]; then wait "$background" || fail "the load beside it failed"; fi
    row "from the 202 until the hot view shows the increment" "100 increments a second of 32 counters; $load_words" "p99 ≤ 50 ms" \
      "p50/p99/most $(calc "$(field p50_ms)" 1)/$(calc "$(field p99_ms)" 1)/$(calc "$(field max_ms)" 1) ms; $(calc "$(field first_time_share) * 100" 0)% at the first question; the 202 itself p50/p99 $(calc "$(field answered_p50_ms)" 1)/$(calc "$(field answered_p99_ms)" 1) ms; misses $(calc "$(field misses)" 0), never shown $(calc "$(field lost)" 0) of $(calc "$(field increments)" 0)" \
      "$(verdict "$(field p99_ms) <= 50 && $(field lost) == 0")"
  done
  stop worker
  stop ingest
}

part_stored() {
  local hot rate length=$((seconds * 5 / 2))
  need_peaks batch
  for hot in "${hots[@]}"; do
    rate=$(calc "${peak[batch$hot]} * 0.5" 0)
    say "ingest to stored at half the peak, --hot $hot"
    pair "$hot"
    warmup=$((warmup + 3)) load ingest "$length" --batch 100 --rate "$rate" --admin "${admin[worker]}" --process "worker=${pid[worker]}" \
      --histogram "stored=${admin[worker]}/tallymark_ingest_to_stored_seconds" --histogram "append=${admin[ingest]}/tallymark_log_append_seconds"
    row "ingest to stored, p99 ($(shown "$hot"))" "$named; batches of 100, $(grouped "$rate") items/s, half the peak; ingest and worker apart, $length s" "≤ 5 s" \
      "p50 $(calc "$(field stored_p50_ms) / 1000") s, p99 $(calc "$(field stored_p99_ms) / 1000") s; lag $(calc "$(field lag_end_s)" 1) s, slope $(calc "$(field lag_slope)" 3); got $(grouped "$(field items_s)")/s, p99 $(calc "$(field p99_ms)" 1) ms; $(costs), worker $(calc "$(field worker_us_item)" 2), Cassandra $(calc "$(field store_us_item)" 2); worker $(calc "$(field worker_rss_max_mib)" 0) MiB$(trouble)" \
      "$(verdict "$(field stored_p99_ms) <= 5000 && $(field stored_p99_ms) > 0 && $(field lag_slope) < 0.03")"
    stop worker
    stop ingest
  done
}
