#!/bin/sh
# /etc/slipway and /var/lib/slipway stay, even with "purge": they hold keys, and journals of what may not be anywhere else yet.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
if [ "${1:-}" = purge ]; then
  for dir in /etc/slipway /var/lib/slipway; do
    if [ -d $dir ]; then echo "slipway: $dir stays; remove it by hand when nobody needs its keys and journals"; fi
  done
fi
