#!/bin/sh
# The tests mount file systems and change owners; a run without root would have to leave most of them out, so it is refused.
[ "$(id -u)" = 0 ] && exit 0
echo "slipway's tests need root: they mount file systems. Run: sudo make test" >&2
exit 1
