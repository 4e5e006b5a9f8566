#!/usr/bin/env bash
# install.sh DIR PACKAGE  installs a deb over a copy of this machine's files that is thrown away, looks with it, removes and purges
# it. It prints what is left after that: nothing is right.
set -euo pipefail
dir=$1 package=$2
if [ "${3:-}" != inside ]; then
  exec unshare --mount --fork --kill-child --pid "$0" "$dir" "$package" inside
fi
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir" -o mode=755
mkdir "$dir/new" "$dir/work" "$dir/root"
cat "$package" >"$dir/lifeline.deb"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/new,workdir=$dir/work" "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run -o mode=755
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
cat "$dir/lifeline.deb" >tmp/lifeline.deb
at() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . "$@"; }
at dpkg --install /tmp/lifeline.deb >&2
at lifeline check --no-probe --for 100ms >tmp/found || [ $? -eq 1 ] # 1 = it found something, which is its job
grep -q '^Rights: ' tmp/found
at lifeline version >&2
[ -s usr/share/man/man1/lifeline-agent.1.gz ] # the unit names it
at bash -n /usr/share/bash-completion/completions/lifeline
[ -s usr/lib/systemd/system/lifeline.service ] && [ ! -e etc/systemd/system/multi-user.target.wants/lifeline.service ]
echo '# mine' >>etc/lifeline/policy.yaml
at dpkg --install /tmp/lifeline.deb >&2 # again, as an update would
grep -q '# mine' etc/lifeline/policy.yaml
at dpkg --remove lifeline >&2
[ -s etc/lifeline/policy.yaml ] && [ ! -e usr/bin/lifeline ]
at dpkg --purge lifeline >&2
cd "$dir/new" && find . ! -type d ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/*' | sort
find . -iname '*lifeline*' ! -path './var/lib/dpkg/*' | sort
