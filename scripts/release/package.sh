#!/usr/bin/env bash
# Makes everything of a release from target/dist/tagrelay-linux-ARCH (build-static.sh): archives, Debian packages, SBOM, image,
# chart, checksums. usage: scripts/release/package.sh [IMAGE [ARCH…]]
#
# IMAGE is the name of the image without a tag; empty: that of the chart. Needs helm, dpkg-deb, python3, and cargo for the SBOM.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

image="${1:-$(sed -n 's/^  repository: //p' deploy/helm/tagrelay/values.yaml)}"
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- amd64 arm64
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)"
revision="${TAGRELAY_COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git show --no-patch --format=%ct HEAD 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
readonly release=scripts/release dist=target/dist

# The program of this machine's architecture writes the documents.
case "$(uname -m)" in
aarch64 | arm64) own=arm64 ;;
*) own=amd64 ;;
esac
$release/documents.sh "${TAGRELAY_PROGRAM:-$dist/tagrelay-linux-$own}" "$dist/documents"

triple() { case "$1" in amd64) echo x86_64-unknown-linux-musl ;; arm64) echo aarch64-unknown-linux-musl ;; esac; }

archive() {
  local name="tagrelay-$version-$(triple "$1")"
  rm -rf "$dist/$name"
  mkdir -p "$dist/$name"
  cp -R "$dist/documents/." LICENSE README.md CHANGELOG.md config.example.toml "$dist/$name/"
  install -m 755 "$dist/tagrelay-linux-$1" "$dist/$name/tagrelay"
  tar --create --directory "$dist" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX "$name" | gzip -9 -n >"$dist/$name.tar.gz"
  rm -rf "$dist/$name"
}

platforms=()
for arch in "$@"; do
  archive "$arch"
  $release/package-deb.sh "$arch" "$dist/tagrelay-linux-$arch" "$dist/documents" "$dist"
  platforms+=(--platform "$arch=$dist/tagrelay-linux-$arch")
done
$release/sbom.py >"$dist/tagrelay-$version.cdx.json"
$release/image.py --version "$version" --revision "$revision" --source "${TAGRELAY_SOURCE:-}" "${platforms[@]}" --out "$dist/image"
$release/package-chart.sh "$image" "$dist/chart"
(cd "$dist" && sha256sum tagrelay-"$version"-*.tar.gz tagrelay_"$version"_*.deb "tagrelay-$version.cdx.json" >SHA256SUMS)
