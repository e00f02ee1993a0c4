#!/usr/bin/env bash
# Sees to the programs that the tests talk to, with apt-get where it is there and allowed.
#
# What it does and what it leaves out goes to standard error. Standard output is one line: the programs that are not
# there afterwards, separated by spaces. `make test` hands it on as TAGRELAY_TEST_WITHOUT, and a test that needs one
# of them says that it was left out.
#
# Nothing that it installs is started, now or at the next boot: the tests start their own, on ports of their own.
# TAGRELAY_SETUP=no keeps it from installing anything.
set -euo pipefail

# sshd lives in /usr/sbin, which is not in everybody's PATH.
export PATH="$PATH:/usr/sbin:/sbin"

# program, Debian packages, what it is for. The first two are needed by the build itself.
readonly programs=(
  "cc|gcc libc6-dev|the build compiles libgit2, SQLite and ring"
  "make|make|make lint, make test"
  "git|git|config repositories in the tests"
  "git-http-backend|git|config repositories over HTTP"
  "docker-registry|docker-registry|a real registry with its notifications"
  "sshd|openssh-server|config repositories over SSH"
  "ssh-keygen|openssh-client|keys for sshd"
  "pyyaml|python3 python3-yaml|a second reader of the manifests that the tests edit"
  "promtool|prometheus|alert rules, their cases, the form of the metrics"
  "postgresql|postgresql|the store's statements are prepared on it"
)
# Packages that bring a daemon, and the units of it.
readonly -A units=([docker-registry]="docker-registry.service" [openssh-server]="ssh.service ssh.socket"
  [prometheus]="prometheus.service" [postgresql]="postgresql.service")

say() { printf '%s\n' "$*" >&2; }

is_there() {
  case "$1" in
  # It is no program of its own but lies beside git's.
  git-http-backend) command -v git >/dev/null && [ -x "$(git --exec-path)/git-http-backend" ] ;;
  # Nor is this: it is a library.
  pyyaml) python3 -c 'import yaml' 2>/dev/null ;;
  # Debian keeps the server's programs out of PATH.
  postgresql) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
  *) command -v "$1" >/dev/null ;;
  esac
}

# Sets `reason` to why this user cannot install packages, or leaves it empty and sets `as_root`.
as_root=()
reason=""
may_install() {
  if [ "${TAGRELAY_SETUP:-}" = no ]; then
    reason="TAGRELAY_SETUP=no says so"
  elif ! command -v apt-get >/dev/null; then
    reason="there is no apt-get here to install it with"
  elif [ "$(id -u)" -ne 0 ]; then
    # -n: never ask for a password, nobody may be there to type it.
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      reason="user $(id -un) is not root and has no sudo that works without a password"
    fi
  fi
  [ -z "$reason" ]
}

# Debian starts a daemon when its package is installed, unless this script says no.
readonly policy=/usr/sbin/policy-rc.d
forbid_starts() {
  [ -e "$policy" ] && return
  trap allow_starts EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
}
allow_starts() { "${as_root[@]}" rm -f "$policy"; }

# A unit that was installed just now would still start at the next boot.
disable_units() {
  local package unit
  for package in "$@"; do
    for unit in ${units[$package]:-}; do
      if command -v systemctl >/dev/null; then
        # Without a running systemd, --now fails after the links are gone; it has nothing to stop then.
        "${as_root[@]}" systemctl disable --now "$unit" >/dev/null 2>&1 || true
      elif [ -e "/etc/init.d/${unit%.service}" ]; then
        "${as_root[@]}" update-rc.d "${unit%.service}" disable >/dev/null 2>&1 || true
      fi
    done
  done
}

apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq "$@" \
    </dev/null >&2
}

install() {
  local package
  say "installing: $*"
  forbid_starts
  apt update || say "apt-get update failed; trying with the lists that are there"
  if ! apt install --yes --no-install-recommends "$@"; then
    # One that cannot be had must not keep out the others.
    for package in "$@"; do apt install --yes --no-install-recommends "$package" || true; done
  fi
  disable_units "$@"
}

missing_packages() {
  local line program packages
  for line in "${programs[@]}"; do
    IFS='|' read -r program packages _ <<<"$line"
    is_there "$program" || tr ' ' '\n' <<<"$packages"
  done | sort -u
}

mapfile -t wanted < <(missing_packages)
if [ "${#wanted[@]}" -gt 0 ] && may_install; then
  install "${wanted[@]}"
  reason="apt-get could not install it, as it says above"
fi

left_out=()
for line in "${programs[@]}"; do
  IFS='|' read -r program packages purpose <<<"$line"
  is_there "$program" && continue
  say "left out: $program ($purpose) because $reason (Debian package: ${packages%% *})"
  left_out+=("$program")
done

# sshd refuses to run as root without it, and on Debian only its service makes it.
if is_there sshd && [ "$(id -u)" -eq 0 ] && [ ! -d /run/sshd ]; then mkdir -m 0755 /run/sshd; fi

# Debian 12 packages no kubectl that is recent enough, so it is used where somebody has installed it.
if ! is_there kubectl; then
  say "left out: kubectl (building the kustomizations) because Debian has no recent one; the manifests are parsed instead"
  left_out+=(kubectl)
fi

printf '%s\n' "${left_out[*]}"

for program in cc git; do
  if ! is_there "$program"; then
    say "error: nothing can be built or tested without $program"
    exit 1
  fi
done
