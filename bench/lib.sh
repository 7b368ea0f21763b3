# shellcheck shell=bash
# Shared by bench/run and bench/stack/run; sourced, not run. Messages, arithmetic, rows of the table, programs that are
# started, asked and ended. Whoever sources it sets `only` (parts, or nothing) before, and `rows=()`.
# shellcheck disable=SC2034,SC2154 # set there, used here, and the other way round

work=target/bench
mkdir -p "$work"
began=$SECONDS
say() { printf 'bench %3d:%02d  %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$*" >&2; }
fail() { echo "bench/run: $*" >&2; exit 1; }
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }
check_parts() { # the parts that there are
  local part
  for part in ${only//,/ }; do
    [[ " $* " == *" $part "* ]] || { echo "bench/run: no part $part; there are $*" >&2; exit 2; }
  done
}

# Arithmetic and comparisons, which bash has not for fractions.
calc() { awk "BEGIN { printf \"%.${2:-2}f\", ($1) }"; }
holds() { awk "BEGIN { exit !($1) }"; }
grouped() {
  local number rest=''
  number=$(calc "$1" 0)
  while [ ${#number} -gt 3 ]; do rest=",${number: -3}$rest" number=${number::-3}; done
  echo "$number$rest"
}
middle() { # of numbers, one a line
  sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

rows=()
row() { # what, load, target, figure, verdict
  rows+=("| $1 | $2 | $3 | $4 | $5 |")
  say "$1: $4 (${5:--})"
}
verdict() { if holds "$1"; then echo met; else echo missed; fi; }
header() { # the conditions
  echo "Measured $(date -u +%F), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), on $(nproc) cores" \
    "($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), load generator included; $1."
}
table() {
  echo "| what | load | target | figure | verdict |"
  echo "| --- | --- | --- | --- | --- |"
  printf '%s\n' "${rows[@]}"
}

# Sets `binary`, unless one was given, and `loader`.
build() {
  say "building"
  if [ -z "$binary" ]; then
    cargo build --release --quiet --bin tallymark || fail "the build failed"
    binary=target/release/tallymark
  fi
  loader=$(executable load)
  [ -x "$loader" ] || fail "the load generator was not built; try: cargo bench --no-run --bench load"
}
executable() { # of a bench, in the same profile
  cargo bench --no-run --bench "$1" 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p'
}

# The address that a program has logged to file $1 for its listener $2.
address() { sed -n "/\"listening\"/{/\"what\":\"$2\"/s/.*\"address\":\"\([^\"]*\)\".*/\1/p}" "$1" | head -n 1; }

# get ADDRESS PATH: the body of what a server answers.
get() {
  exec 3<> "/dev/tcp/${1%:*}/${1##*:}" || return 1
  printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
  timeout 15 cat <&3 | sed '1,/^\r$/d'
  exec 3>&-
}
ready() { # the admin port's address
  exec 3<> "/dev/tcp/${1%:*}/${1##*:}" || return 1
  printf 'GET /health/readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3
  local line
  read -r -t 5 line <&3 || line=''
  exec 3>&-
  [[ $line == *' 200 '* ]]
}

# finish PID: ends a process of ours, politely first.
finish() {
  kill -TERM "$1" 2>/dev/null || true
  local left=300
  while kill -0 "$1" 2>/dev/null && [ $((left -= 1)) -gt 0 ]; do sleep 0.1; done
  if kill -0 "$1" 2>/dev/null; then
    say "process $1 did not drain in 30 s: killed"
    kill -KILL "$1" 2>/dev/null || true
  fi
  wait "$1" 2>/dev/null || true
}

# What the load generator answered, one line of flat JSON.
answer=''
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" <<< "$answer"; }
trouble() { # what went wrong besides being slow
  local text=''
  for name in refused closed unanswered; do
    if holds "$(field $name) > 0"; then text+=" $(calc "$(field $name)" 0) $name"; fi
  done
  [ -z "$text" ] || printf ';%s (%s)' "$text" "$(field statuses)"
  others
}
others() { # what nobody of ours took, when it is so much that the figures are not to be believed
  local cores
  cores=$(field others_cores)
  if holds "${cores:-0} > 0.3"; then printf '; OTHERS TOOK %s CORES' "$(calc "$cores" 1)"; fi
}
