#!/usr/bin/env bash
# Builds the container image: with Docker if an engine runs, else from static programs, as an OCI layout.
#
# usage: scripts/release/make-image.sh NAME:TAG, with the variables
#   PUSH=yes        push it; without Docker, with skopeo
#   DOCKER=no       do not use Docker
#   ARCHS           without Docker: amd64, arm64 or both; default: this machine's
#   PROGRAMS        without Docker: ARCH=FILE…, programs that are built already
#   OUT             without Docker: the folder of the layout; default: target/dist/image
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

image="${1:?usage: $0 NAME:TAG}"
# The last colon may be that of a port.
tag="${image##*:}"
if [ "$tag" = "$image" ] || [[ $tag == */* ]]; then
  printf 'error: %s has no tag\n' "$image" >&2
  exit 1
fi
# An archive without .git has neither.
TAGRELAY_COMMIT="${TAGRELAY_COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}"
TAGRELAY_COMMIT_DATE="${TAGRELAY_COMMIT_DATE:-$(git show --no-patch --format=%cs HEAD 2>/dev/null || true)}"

if [ "${DOCKER:-}" != no ] && docker info >/dev/null 2>&1; then
  docker build --build-arg TAGRELAY_COMMIT="$TAGRELAY_COMMIT" --build-arg TAGRELAY_COMMIT_DATE="$TAGRELAY_COMMIT_DATE" \
    --tag "$image" .
  if [ "${PUSH:-}" = yes ]; then docker push "$image"; fi
  exit
fi

case "$(uname -m)" in
aarch64 | arm64) own=arm64 ;;
*) own=amd64 ;;
esac
out="${OUT:-target/dist/image}"
platforms=()
if [ -n "${PROGRAMS:-}" ]; then
  for pair in $PROGRAMS; do platforms+=(--platform "$pair"); done
else
  # shellcheck disable=SC2086 # several words
  scripts/release/build-static.sh ${ARCHS:-$own}
  for arch in ${ARCHS:-$own}; do platforms+=(--platform "$arch=target/dist/tagrelay-linux-$arch"); done
fi
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git show --no-patch --format=%ct HEAD 2>/dev/null || echo 0)}"
scripts/release/image.py --version "$tag" --revision "$TAGRELAY_COMMIT" "${platforms[@]}" --out "$out"
copy=(skopeo copy --all)
# As Docker does, without TLS only on this machine.
case "$image" in 127.0.0.1:* | localhost:*) copy+=(--dest-tls-verify=false) ;; esac
copy+=("oci:$out:$tag" "docker://$image")
if [ "${PUSH:-}" = yes ]; then
  if ! command -v skopeo >/dev/null; then
    printf 'error: pushing without Docker needs skopeo (Debian package: skopeo)\n' >&2
    exit 1
  fi
  "${copy[@]}"
else
  printf '%s is an OCI layout. To push it, PUSH=yes or:\n  %s\n' "$out" "${copy[*]}" >&2
fi
