#!/usr/bin/env bash
# Builds the static program for Linux: target/dist/tagrelay-linux-ARCH. usage: scripts/release/build-static.sh amd64|arm64…
#
# Needs rustup with the musl targets (or network, to add them), python3 with venv, and a C compiler. zig is the C compiler
# of the target, so that every machine builds for both. Tools are installed into target/release-tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly tools="$PWD/target/release-tools"
readonly zig=0.15.2 zigbuild=0.24.1 auditable=0.7.7
# Without rustup's proxies, RUSTC and the like must have the targets.
readonly cargo_home="${CARGO_HOME:-$HOME/.cargo}"

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

install_tools() {
  if [ ! -x "$tools/venv/bin/cargo-zigbuild" ]; then
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet "ziglang==$zig" "cargo-zigbuild==$zigbuild"
  fi
  # Writes the list of dependencies into the program, for `cargo audit bin` and scanners of images.
  if [ ! -x "$tools/bin/cargo-auditable" ]; then
    cargo install --quiet --locked --root "$tools" --target-dir "$tools/target" --version "$auditable" cargo-auditable
  fi
  PATH="$tools/bin:$tools/venv/bin:$PATH"
}

build() {
  local target
  case "$1" in
  amd64) target=x86_64-unknown-linux-musl ;;
  arm64) target=aarch64-unknown-linux-musl ;;
  *) fail "$1 is neither amd64 nor arm64" ;;
  esac
  rustup target list --installed | grep -qx "$target" || rustup target add "$target" ||
    fail "the target $target is missing: rustup target add $target"
  # Paths of this machine would be in messages of panics, and make builds on two machines differ.
  local flags="--remap-path-prefix=$PWD=/tagrelay --remap-path-prefix=$cargo_home/registry/src=/crates"
  CARGO_INCREMENTAL=0 RUSTFLAGS="$flags" \
    CFLAGS="-ffile-prefix-map=$PWD=/tagrelay -ffile-prefix-map=$cargo_home/registry/src=/crates" \
    cargo auditable zigbuild --release --locked --target "$target" --bin tagrelay
  mkdir -p target/dist
  install -m 755 "${CARGO_TARGET_DIR:-target}/$target/release/tagrelay" "target/dist/tagrelay-linux-$1"
  scripts/release/check-program.py --arch "$1" --forbid "$PWD" --forbid "$cargo_home" --forbid "$HOME/" \
    "target/dist/tagrelay-linux-$1"
}

[ $# -gt 0 ] || fail "usage: $0 amd64|arm64…"
install_tools
for arch in "$@"; do build "$arch"; done
