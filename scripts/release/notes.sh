#!/usr/bin/env bash
# Prints the section of a version in CHANGELOG.md. usage: scripts/release/notes.sh 0.2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version="${1:?usage: $0 VERSION}"
# From the heading `## VERSION`, perhaps with a date, to the next one.
notes="$(awk -v version="$version" '
  /^## / { inside = ($2 == version || $2 == "[" version "]"); next }
  inside { print }
' CHANGELOG.md)"
if [ -z "${notes//[[:space:]]/}" ]; then
  printf 'error: CHANGELOG.md has no section "## %s" with text\n' "$version" >&2
  exit 1
fi
# Without the blank lines at the beginning and, by $( ), at the end.
printf '%s\n' "$notes" | sed '/./,$!d'
