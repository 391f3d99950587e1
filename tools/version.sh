#!/bin/bash
# version.sh [time]: the version of what is checked out, or the time of its commit in seconds (SOURCE_DATE_EPOCH). A tag v1.2 is version 1.2;
# a commit without one comes after the last tag and is ordered by its time. VERSION and SOURCE_DATE_EPOCH decide where there is no git.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
if [ "${1:-}" = time ]; then echo "$seconds"; exit; fi
if [ -n "${VERSION:-}" ]; then echo "$VERSION"; exit; fi
if tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then echo "${tag#v}"; exit; fi
last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || echo v0.0)
echo "${last#v}+git$(date -u -d "@$seconds" +%Y%m%d%H%M%S).$(git rev-parse --short=10 HEAD)"
