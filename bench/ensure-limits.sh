#!/usr/bin/env bash
# What the bench is measured against beside its peers, from Debian, where that can be had. Without it, its row says so.
set -euo pipefail
ldconfig -p 2>/dev/null | grep -q libmodbus.so && exit 0
command -v apt-get >/dev/null || exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || exit 0
    as_root=(sudo -n)
fi
echo "Installing libmodbus5 …"
{ "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libmodbus5; } \
    >/dev/null 2>&1 || echo "libmodbus5 could not be installed; the bench goes on without it" >&2
