#!/usr/bin/env bash
# Makes a Debian package. usage: scripts/release/package-deb.sh amd64|arm64 PROGRAM DOCUMENTS FOLDER
#
# DOCUMENTS is a folder made by scripts/release/documents.sh. The same input gives the same bytes; SOURCE_DATE_EPOCH is the
# time of the files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly usage="usage: $0 amd64|arm64 PROGRAM DOCUMENTS FOLDER"
arch="${1:?$usage}" program="${2:?$usage}" documents="${3:?$usage}" out="${4:?$usage}"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)"
tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
umask 022

put() { install -D -m "$1" "$2" "$tree/$3"; }
put_gzipped() {
  mkdir -p "$(dirname "$tree/$2")"
  gzip -9 -n <"$1" >"$tree/$2"
}

put 755 "$program" usr/bin/tagrelay
put 644 deploy/systemd/tagrelay.service usr/lib/systemd/system/tagrelay.service
put 644 config.example.toml usr/share/doc/tagrelay/config.example.toml
put 644 README.md usr/share/doc/tagrelay/README.md
put_gzipped CHANGELOG.md usr/share/doc/tagrelay/changelog.gz
for page in "$documents"/man/*.1; do put_gzipped "$page" "usr/share/man/man1/$(basename "$page").gz"; done
put 644 "$documents/completions/tagrelay.bash" usr/share/bash-completion/completions/tagrelay
put 644 "$documents/completions/_tagrelay" usr/share/zsh/vendor-completions/_tagrelay
put 644 "$documents/completions/tagrelay.fish" usr/share/fish/vendor_completions.d/tagrelay.fish
mkdir -p "$tree/DEBIAN"
cat >"$tree/usr/share/doc/tagrelay/copyright" <<'TEXT'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Tagrelay

Files: *
Copyright: the authors of Tagrelay
License: Apache-2.0
 On Debian systems, the text of the license is in /usr/share/common-licenses/Apache-2.0.
TEXT
# Neither user nor directories are made at installation: the unit has DynamicUser and StateDirectory.
cat >"$tree/DEBIAN/control" <<TEXT
Package: tagrelay
Version: $version
Architecture: $arch
Maintainer: Tagrelay <tagrelay@example.com>
Section: admin
Priority: optional
Depends: ca-certificates
Installed-Size: $(du -sk --apparent-size "$tree/usr" | cut -f 1)
Description: GitOps image updater for Argo CD
 Relays image tags from container registries to the Git repository that Argo
 CD watches: receives the webhooks of registries, verifies the image, and
 commits the new tag.
TEXT
# dpkg-deb writes the times of the files, so all of them get one.
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/tagrelay_${version}_$arch.deb"
