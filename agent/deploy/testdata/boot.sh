#!/usr/bin/env bash
# boot.sh DIR PROGRAM  boots the systemd of this machine, over a copy of its files that is thrown away, with nothing but the unit
# beside this folder: in namespaces and cgroups of its own, so that nothing outside notices. DIR/up is there when it is about to.
set -euo pipefail
dir=$1 program=$2 here=$(cd "$(dirname "$0")/.." && pwd)
if [ "${3:-}" != inside ]; then
  awk '$3 == "cgroup2" || $3 == "cgroup" {print $2}' /proc/mounts | while read -r hierarchy; do
    group=$hierarchy/lifeline-boot-$(basename "$dir")
    mkdir -p "$group"
    for kind in cpus mems; do # a cpuset without any takes nobody
      [ ! -e "$group/cpuset.$kind" ] || [ -s "$group/cpuset.$kind" ] && [ -n "$(cat "$group/cpuset.$kind" 2>/dev/null)" ] || cat "$hierarchy/cpuset.$kind" >"$group/cpuset.$kind" 2>/dev/null || true
    done
    echo $$ >"$group/cgroup.procs" 2>/dev/null || true
    echo "$group" >>"$dir/groups"
  done
  exec unshare --net --mount --pid --fork --kill-child --ipc --uts --cgroup "$0" "$dir" "$program" inside
fi
ip link set lo up
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir" -o mode=755
mkdir "$dir/new" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/new,workdir=$dir/work" "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run -o mode=755
mount --rbind /dev dev
rm -rf etc/systemd/system etc/systemd/network var/lib/lifeline var/lib/private/lifeline var/log/journal
mkdir -p etc/systemd/system old
# What would set up this machine and not only this copy of it.
for unit in systemd-sysctl systemd-modules-load systemd-binfmt systemd-remount-fs systemd-udevd systemd-udev-trigger systemd-random-seed \
  systemd-pstore systemd-hwdb-update systemd-timesyncd systemd-networkd systemd-update-utmp networking; do
  ln -s /dev/null "etc/systemd/system/$unit.service"
done
ln -s /dev/null etc/systemd/system/proc-sys-fs-binfmt_misc.automount
cat "$program" >usr/bin/lifeline
chmod 755 usr/bin/lifeline
install -D -m 644 "$here/lifeline.service" lib/systemd/system/lifeline.service
install -D -m 644 "$here/act.conf" usr/share/lifeline/act.conf
install -D -m 644 "$here/policy.yaml" etc/lifeline/policy.yaml
pivot_root . old
umount -l old
exec env -i container=lifeline PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=lifeline.service --log-target=journal --show-status=no
