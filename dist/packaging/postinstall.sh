#!/bin/sh
# Nothing is enabled, started or restarted: a mount in use goes on with the program it was started with, until you restart it.
set -e
systemd-tmpfiles --create slipway.conf
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
