#!/bin/sh
# Makes the account slipway, which cache hosts, replica peers and receivers run as.
set -e
systemd-sysusers --replace=/usr/lib/sysusers.d/slipway.conf - <<'EOF'
@SYSUSERS@
EOF
