# shellcheck shell=bash
# Shared by tests/run and tests/stack; sourced, not run. Puts missing Debian packages in place, and knows the cache.

# Tools and jars outlive `cargo clean`: they live in a cache of their own.
# shellcheck disable=SC2034 # used by those that source this
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tallymark"

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() { # WHAT PACKAGE…: WHAT is what was missed, for the message
  local what=$1
  shift
  command -v apt-get >/dev/null 2>&1 || {
    echo "$0: $what is missing, and there is no apt-get to install it: install it by hand" >&2
    exit 1
  }
  [ -n "${apt_updated:-}" ] || as_root apt-get update -qq >&2
  apt_updated=1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need() { # COMMAND PACKAGE…: installs the packages when the command is missing
  command -v "$1" >/dev/null 2>&1 || install_packages "$@"
}
