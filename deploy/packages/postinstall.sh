#!/bin/sh
# After an installation or an upgrade. dpkg calls it with `configure` and the former version, if there
# is one; rpm with 1 for the first version, and 2 for an upgrade.
set -e

case "$1" in
    configure) if [ -n "$2" ]; then change=upgrade; else change=install; fi ;;
    1) change=install ;;
    2) change=upgrade ;;
    # Of dpkg, when another step has failed.
    *) exit 0 ;;
esac

systemd-sysusers boldgate.conf
# rpm gives them their first group at each upgrade; dpkg never touches them again.
if [ "$change" = install ] || [ "$1" = 2 ]; then
    chgrp boldgate /etc/boldgate /etc/boldgate/secrets /etc/boldgate/gateway.yaml
fi

running() { [ -d /run/systemd/system ]; }

if running; then systemctl daemon-reload || true; fi
if [ "$change" = install ]; then
    echo "boldgate is installed, and not started before it is configured:"
    echo "the first lines of /etc/boldgate/gateway.yaml say how."
elif running && systemctl --quiet is-active boldgate.service; then
    # The sockets stay with systemd, so that clients wait and lose no connection.
    if boldgate check --no-secrets /etc/boldgate/gateway.yaml; then
        systemctl restart boldgate.service || true
    else
        echo "boldgate: the new version refuses the configuration; the former version runs on" >&2
        echo "until you correct it and call: systemctl restart boldgate" >&2
    fi
fi
