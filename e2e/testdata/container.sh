# The container image, as somebody runs it who allows it nothing:
#
#	unshare --mount sh container.sh IMAGE.tar VERSION
#
# Containers have a network that is shared by themselves alone.
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
if mountpoint -q /sys/fs/cgroup/unified; then
  umount /sys/fs/cgroup/unified # container runtimes refuse the two hierarchies side by side
fi
image=ghcr.io/iotdm/iotdm:$2

# Podman leaves health checks to systemd, and complains where there is none.
podman() { command podman --root /mnt/podman --runroot /mnt/podman-run --storage-driver vfs --runtime runc "$@"; }
run() {
  podman run --no-healthcheck --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
    --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 "$@"
}
trap 'podman rm --all --force >/dev/null 2>&1 || true' EXIT
step() { printf '== %s\n' "$*"; }

step what is in it
podman load --quiet --input "$1"
run --rm --network none $image --version | grep "^iotdm $2 linux/"
podman image inspect --format '{{.Config.User}} {{.Config.Cmd}} {{.Config.Healthcheck.Test}}' $image |
  grep -F '65532:65532 [hub run] [CMD /usr/bin/iotdm hub status]'

step without the right to listen on 443 it says so
if run --rm --network none $image 2>/mnt/refused; then
  exit 1
fi
grep 'iotdm: this user may not listen on :443' /mnt/refused

step a hub, on a volume
run --detach --name hub --network none --sysctl net.ipv4.ip_unprivileged_port_start=0 --env IOTDM_HUB_HOST=hub --volume hub:/data $image >/dev/null
podman exec hub iotdm hub status --wait 30s
pid=$(podman inspect --format '{{.State.Pid}}' hub)
grep -E '^(Uid:.*65532|Cap(Eff|Bnd):\s*0000000000000000|NoNewPrivs:\s*1)' "/proc/$pid/status"
for path in health ready metrics ca.pem; do
  nsenter --net --target "$pid" curl --silent --show-error --fail --output "/mnt/$path" "http://127.0.0.1:8080/$path"
done

step a device and a service in containers beside it
podman exec hub iotdm service device create --device pump >/dev/null
beside() { run --network container:hub --volume /mnt/ca.pem:/ca.pem:ro --env IOTDM_CA_FILE=/ca.pem "$@"; }
beside --detach --name device --env IOTHUB_DEVICE_CONNECTION_STRING="$(podman exec hub iotdm hub connection-string --device pump --host localhost)" \
  $image device run --reboot-duration 0s >/dev/null
reboot() {
  beside --rm --env IOTHUB_CONNECTION_STRING="$(podman exec hub iotdm hub connection-string --host localhost)" \
    $image service reboot --device pump --connect-timeout 30s
}
reboot

step killed, and started on the same volume: the device is known, and comes back
podman kill hub >/dev/null
podman rm hub >/dev/null 2>&1 || podman rm --force --depend hub >/dev/null
run --detach --name hub --network none --sysctl net.ipv4.ip_unprivileged_port_start=0 --env IOTDM_HUB_HOST=hub --volume hub:/data $image >/dev/null
podman exec hub iotdm hub status --wait 30s
beside --detach --name device --env IOTHUB_DEVICE_CONNECTION_STRING="$(podman exec hub iotdm hub connection-string --device pump --host localhost)" \
  $image device run --reboot-duration 0s >/dev/null
reboot

step stopped in good order
podman stop --time 20 device hub >/dev/null
[ "$(podman inspect --format '{{.State.ExitCode}}' hub device | sort -u)" = 0 ]
