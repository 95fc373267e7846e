#!/bin/sh
# After a removal. dpkg calls it with `remove`, and with `purge` when the configuration goes as well;
# rpm with 0 when no version stays. rpm keeps the configuration if it was changed.
set -e

if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
if [ "$1" = purge ]; then
    rm -rf /etc/boldgate /var/log/boldgate
    for group in boldgate-clients boldgate; do
        if [ "$group" = boldgate ] && getent passwd boldgate >/dev/null; then userdel boldgate; fi
        if getent group "$group" >/dev/null; then groupdel "$group"; fi
    done
fi
