#!/bin/sh
# After unpacking. Arguments: of dpkg "configure" and the version before, if any; of rpm how many versions there are.
set -e
case "$1" in
configure | [0-9]*) ;;
*) exit 0 ;; # dpkg takes back something that failed
esac

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers iotdm.conf
elif ! getent passwd iotdm >/dev/null; then
	useradd --system --user-group --home-dir /var/lib/iotdm-hub --no-create-home --shell /usr/sbin/nologin iotdm
fi

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || true
for unit in iotdm-device.service iotdm-hub.service; do
	if grep -q "/$unit" /proc/self/cgroup; then
		# Restarting the agent that runs this update would kill the update.
		echo "$unit goes on with the version before until it is restarted, since it runs this update"
	else
		systemctl try-restart "$unit" || true # what does not run stays as it is
	fi
done
