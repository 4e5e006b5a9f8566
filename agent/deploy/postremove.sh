#!/bin/sh
# dpkg keeps the history until purge; rpm knows no purge and keeps it.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload >/dev/null 2>&1 || true
if [ "$1" = purge ]; then
  rm -rf /var/lib/lifeline /var/lib/private/lifeline /etc/systemd/system/lifeline.service.d
  rmdir /etc/lifeline 2>/dev/null || true
fi
