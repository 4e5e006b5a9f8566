#!/bin/sh
# After an installation nothing runs that did not run before: it says how. After an update what ran runs again, as the new one.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload >/dev/null 2>&1 || true
first=yes
case "$1" in
  configure) [ -z "$2" ] || first= ;;  # dpkg: $2 is the version that was there
  1 | '') ;;                           # rpm: 1 is the first installation
  *) first= ;;
esac
if [ -n "$first" ]; then
  echo 'lifeline: nothing was started. To look once: lifeline check. To keep watch: systemctl enable --now lifeline'
elif [ -d /run/systemd/system ]; then
  systemctl try-restart lifeline.service >/dev/null 2>&1 || true
fi
