#!/bin/sh
# Before removal. Arguments: of dpkg "remove", or "upgrade" and such; of rpm how many versions will be left.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0
systemctl --no-reload disable --now iotdm-device.service iotdm-hub.service || true
