#!/bin/bash
# packages.sh DIR: deb and rpm of what is checked out, into DIR, with SHA256SUMS. The same sources give the same bytes: no path, no name and no
# time of the building machine goes into them. ARCH chooses the architecture (arm64).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?directory for the packages}
VERSION=$(tools/version.sh)
SOURCE_DATE_EPOCH=$(tools/version.sh time)
COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}
ARCH=${ARCH:-$(go env GOARCH)}
export VERSION SOURCE_DATE_EPOCH ARCH
mkdir -p .build
exec 9>.build/package.lock
flock 9 # one at a time: two would work in one place
stage=.build/package # dist/nfpm.yaml takes from here what is made
rm -rf $stage
mkdir -p $stage/completions $stage/man "$out"

build() { # of an architecture, to a place
  GOARCH=$1 CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$2" \
    -ldflags "-s -w -buildid= -X slipway/internal/release.Version=$VERSION -X slipway/internal/release.commit=$COMMIT" ./cmd/slipway
}
build "$ARCH" $stage/slipway
self=$stage/slipway # one that runs here
if [ "$ARCH" != "$(go env GOHOSTARCH)" ]; then self=$stage/self; build "$(go env GOHOSTARCH)" $self; fi
for shell in bash zsh fish; do $self completion $shell >$stage/completions/$shell; done
$self commands | go run ./tools/man docs $stage/man
gzip -9 -n $stage/man/*

# The account has to be there before the files that belong to its group: the script that runs first brings its own copy of the definition.
sed -e "/@SYSUSERS@/{r dist/systemd/slipway.sysusers
d}" dist/packaging/preinstall.sh >$stage/preinstall.sh

umask 022
rm -f "$out"/slipway[-_]*.deb "$out"/slipway[-_]*.rpm
for kind in deb rpm; do .build/nfpm package --config dist/nfpm.yaml --packager $kind --target "$out" >/dev/null; done
(cd "$out" && sha256sum -- *.deb *.rpm >SHA256SUMS && cat SHA256SUMS)
