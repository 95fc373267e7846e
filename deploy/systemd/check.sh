#!/usr/bin/env bash
# Checks the units: systemd understands every line, and rates the exposure of the service at most 1.5.
#
#     deploy/systemd/check.sh FOLDER
set -euo pipefail
out=$(realpath --canonicalize-missing "${1:?usage: check.sh FOLDER}")
cd "$(dirname "$0")"

rm -rf "$out"
mkdir -p "$out"
cp ./*.socket "$out"
# The program is not installed here.
sed 's|/usr/bin/boldgate|/bin/true|' boldgate.service >"$out/boldgate.service"
# An unknown key is only a warning of systemd.
said=$(SYSTEMD_UNIT_PATH=$out: systemd-analyze verify "$out"/* 2>&1) || said="${said:-the units are refused}"
if [ -n "$said" ]; then
    echo "$said" >&2
    exit 1
fi
systemd-analyze security --offline=true --no-pager --threshold=15 "$out/boldgate.service" >"$out/security.txt" || {
    cat "$out/security.txt" >&2
    exit 1
}
