#!/bin/sh
# After removal. Keys, twins and what waits in an outbox stay; "apt purge" deletes them. The user stays, so that no
# other gets its number and with it what may be left of its files.
set -e
if [ "$1" = purge ]; then
	rm -rf /etc/iotdm /var/lib/iotdm /var/lib/iotdm-hub
fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || true
