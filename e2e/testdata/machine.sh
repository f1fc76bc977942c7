# A machine with systemd, on which somebody installs the package, runs a hub and
# an agent, upgrades, removes and purges it:
#
#	unshare --mount sh machine.sh FILE.deb
#
# It is this machine's file system, with all that is written kept in memory, in a
# container of podman without a network.
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
for dir in tmp run var/log var/tmp; do
  mount -t tmpfs tmpfs /mnt/root/$dir
done
rm -rf /mnt/root/var/lib/iotdm* /mnt/root/etc/iotdm
cp "$1" /mnt/root/srv/iotdm.deb
if mountpoint -q /sys/fs/cgroup/unified; then
  umount /sys/fs/cgroup/unified # container runtimes refuse the two hierarchies side by side
fi

podman() { command podman --root /mnt/podman --runroot /mnt/podman-run --storage-driver vfs --runtime runc "$@"; }
trap 'podman rm --force machine >/dev/null 2>&1 || true' EXIT
podman run --detach --name machine --hostname machine --network none --systemd always --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 \
  --rootfs /mnt/root /lib/systemd/systemd --unit basic.target >/dev/null

on() { podman exec --env IOTDM_DATA=/var/lib/iotdm-hub machine "$@"; }
step() { printf '== %s\n' "$*"; }
expect() { # expect TEXT COMMAND...: wait until the command prints a line with the text
  for _ in $(seq 150); do
    if out=$(on sh -c "$2" 2>&1) && echo "$out" | grep -q "$1"; then
      return
    fi
    sleep 0.2
  done
  printf '%s does not print %s but:\n%s\n' "$2" "$1" "$out"
  on journalctl --no-pager --unit 'iotdm*' || true
  exit 1
}
status() { on systemctl show --property "$2" --value "$1"; }

expect active 'systemctl is-active basic.target'

step install: nothing is started
on dpkg --install /srv/iotdm.deb
[ "$(on systemctl is-enabled iotdm-hub iotdm-device | sort -u)" = disabled ]
[ "$(on systemctl is-active iotdm-hub iotdm-device | sort -u)" = inactive ]
on systemd-analyze verify --man=no iotdm-hub.service iotdm-device.service

step a hub, as a user of its own, with one capability
on systemctl enable --now iotdm-hub
expect 'answers on .*:8883.*:5671.*:443' 'iotdm hub status'
[ "$(status iotdm-hub StatusText)" = '0 connected devices' ]
on sh -c 'cat "/proc/$(systemctl show --property MainPID --value iotdm-hub)/status"' >/mnt/status
grep -q "^Uid:[[:space:]]$(on id -u iotdm)[[:space:]]" /mnt/status
grep -q '^CapEff:[[:space:]]*0000000000000400$' /mnt/status # CAP_NET_BIND_SERVICE
grep -q '^Seccomp:[[:space:]]*2$' /mnt/status
[ "$(on stat --format '%U %a' /var/lib/iotdm-hub)" = 'iotdm 700' ]
if on setpriv --reuid nobody --clear-groups cat /etc/iotdm/hub.env /etc/iotdm/device.yaml 2>/dev/null; then
  exit 1
fi

step an agent, which says why it does not start, and then does
if on systemctl start iotdm-device; then
  exit 1
fi
expect '/etc/iotdm/connection-string' 'journalctl --no-pager --unit iotdm-device'
on sh -c 'iotdm service device create --device pump >/dev/null
  iotdm hub connection-string --device pump --host machine | install -m 0600 /dev/stdin /etc/iotdm/connection-string
  install -m 0644 /var/lib/iotdm-hub/ca.pem /usr/local/share/ca-certificates/iotdm-hub.crt && update-ca-certificates >/dev/null'
on systemctl enable --now iotdm-device
expect 'connected to machine as pump' 'systemctl status --no-pager iotdm-device'

step the hub is killed, and comes back with its devices
on systemctl kill --signal KILL iotdm-hub
expect pump 'iotdm service device list'
expect '"connectionState": "Connected"' 'iotdm service device get --device pump -o json'

step upgrade: both are restarted
hub=$(status iotdm-hub MainPID) device=$(status iotdm-device MainPID)
on sh -c 'echo "# changed" >>/etc/iotdm/hub.env'
on dpkg --install /srv/iotdm.deb
expect '"connectionState": "Connected"' 'iotdm service device get --device pump -o json'
[ "$(status iotdm-hub MainPID)" != "$hub" ]
[ "$(status iotdm-device MainPID)" != "$device" ]
on grep -q '# changed' /etc/iotdm/hub.env

step upgrade by the agent itself, allowed as docs/AGENT.md says: it goes on, and the upgrade gets to its end
on sh -c 'mkdir -p /run/systemd/system/iotdm-device.service.d
  printf "[Service]\nProtectSystem=no\nSystemCallFilter=@system-service @privileged\n" >/run/systemd/system/iotdm-device.service.d/update.conf
  echo "CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_SETUID CAP_SETGID CAP_FSETID" >>/run/systemd/system/iotdm-device.service.d/update.conf
  echo "on-method: {update: \"timeout=10m:shell:dpkg --install /srv/iotdm.deb >/srv/update.log && echo done >>/srv/update.log\"}" >>/etc/iotdm/device.yaml
  systemctl daemon-reload && systemctl restart iotdm-device'
device=$(status iotdm-device MainPID)
expect '"connectionState": "Connected"' 'iotdm service device get --device pump -o json'
hub=$(status iotdm-hub MainPID)
on iotdm service method invoke --device pump --method update --timeout 60s || true # the hub, which is told too, ends on its way
expect 'iotdm-device.service goes on' 'cat /srv/update.log'
expect done 'cat /srv/update.log'
[ "$(status iotdm-hub MainPID)" != "$hub" ]
[ "$(status iotdm-device MainPID)" = "$device" ]
expect '"connectionState": "Connected"' 'iotdm service device get --device pump -o json'

step remove: what it knows stays
on dpkg --remove iotdm
[ "$(on systemctl is-active iotdm-hub iotdm-device | sort -u)" = inactive ]
on test -s /var/lib/iotdm-hub/policies.json -a -s /etc/iotdm/hub.env

step purge
on dpkg --purge iotdm
if on sh -c 'ls -d /var/lib/iotdm* /etc/iotdm /etc/systemd/system/multi-user.target.wants/iotdm*' 2>/dev/null; then
  exit 1
fi
