#!/bin/sh
# Before a removal, or an upgrade. dpkg calls it with `remove` or `upgrade`; rpm with 0 when no version
# stays, else with 1.
set -e

case "$1" in
    remove | 0)
        if [ -d /run/systemd/system ]; then
            systemctl --quiet disable --now boldgate.service boldgate.socket boldgate-clients.socket || true
        fi
        ;;
esac
