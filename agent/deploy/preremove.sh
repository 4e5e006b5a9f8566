#!/bin/sh
# Before it is removed for good the agent ends; before an update it runs on.
set -e
case "$1" in
  remove | 0) [ ! -d /run/systemd/system ] || systemctl disable --now lifeline.service >/dev/null 2>&1 || true ;;
esac
