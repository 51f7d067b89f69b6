#!/usr/bin/env bash
# Installs what the fault suite needs beside mosquitto: libfaketime and gcc, from Debian. Where they cannot be had, the
# suite runs all the same, and its table says which rows were not done and why.
set -uo pipefail
missing=()
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
echo "Installing ${missing[*]} …"
if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
    && ! { "${as_root[@]}" apt-get update -qq >/dev/null \
        && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; then
    echo "make faults: ${missing[*]} could not be installed; the rows that need it are skipped, and named" >&2
fi
