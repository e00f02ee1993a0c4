#!/usr/bin/env bash
# Writes manual pages and completions. usage: scripts/release/documents.sh PROGRAM FOLDER
#
# PROGRAM runs on this machine; the documents are the same for every architecture.
set -euo pipefail

readonly usage="usage: $0 PROGRAM FOLDER"
program="${1:?$usage}" out="${2:?$usage}"
rm -rf "$out"
mkdir -p "$out/completions"
"$program" manual "$out/man"
"$program" completion bash >"$out/completions/tagrelay.bash"
"$program" completion zsh >"$out/completions/_tagrelay"
"$program" completion fish >"$out/completions/tagrelay.fish"
