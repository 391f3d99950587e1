#!/bin/sh
# Called by dpkg with "remove" or "upgrade", by rpm with the number of installations that stay: an upgrade concerns no mount.
set -e
case "${1:-}" in remove | 0) ;; *) exit 0 ;; esac
mounted=$(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) .* - fuse\.slipway .*/  \1/p' /proc/self/mountinfo)
if [ -n "$mounted" ]; then
  cat >&2 <<EOF
slipway: WARNING: volumes are still mounted:
$mounted
Their daemons go on and what is written is sealed, but after they end nothing can mount the volumes again: the plain files are in
the source: directories of /etc/slipway. To end them cleanly, install slipway again and say: slipway umount --drain cached
EOF
fi
