#!/usr/bin/env bash
# Installs the servers that the tests need and pip cannot give: mosquitto and libmodbus, from Debian.
set -euo pipefail
export PATH="$PATH:/usr/sbin"
missing=()
command -v mosquitto >/dev/null || missing+=(mosquitto)
ldconfig -p | grep -q libmodbus.so || missing+=(libmodbus5)
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        echo "make test needs ${missing[*]}: install it with  sudo apt-get install ${missing[*]}  and try again" >&2
        exit 69
    fi
    as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null; then
    echo "make test needs ${missing[*]}, and there is no apt-get here: install it and try again" >&2
    exit 69
fi
echo "Installing ${missing[*]} …"
"${as_root[@]}" apt-get update -qq >/dev/null
# The package would start a broker of its own; the tests start private ones only.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
