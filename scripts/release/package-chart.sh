#!/usr/bin/env bash
# Packages the Helm chart with the name of the released image. usage: scripts/release/package-chart.sh IMAGE FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

image="${1:?usage: $0 IMAGE FOLDER}"
out="${2:?usage: $0 IMAGE FOLDER}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -R deploy/helm/tagrelay "$work/"
values="$work/tagrelay/values.yaml"
# The only line of values.yaml that begins so is that of `image`.
sed -i "s|^  repository: .*|  repository: $image|" "$values"
grep -qxF "  repository: $image" "$values"
mkdir -p "$out"
"${HELM:-helm}" package "$work/tagrelay" --destination "$out"
