#!/usr/bin/env bash
# Installs the OPC UA server that is not written in Python, once, into the directory given, and says where it is.
# Fails with one sentence where Node.js or its registry is missing; it takes 90 s at most.
set -euo pipefail
here=$(cd "$(dirname "$0")/node-opcua" && pwd)
into=$1/$(sha256sum "$here/package.json" | cut -c1-16)
if [ -f "$into/.installed" ]; then
    echo "$into"
    exit 0
fi
for command in node npm flock timeout; do
    command -v "$command" >/dev/null || { echo "$command is not installed here" >&2; exit 69; }
done
mkdir -p "$into"
exec 9>"$into/.lock"
flock 9
if [ ! -f "$into/.installed" ]; then
    cp "$here/package.json" "$into/"
    (cd "$into" && timeout 90 npm install --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error \
        >npm.log 2>&1) || { echo "npm cannot install it: $(tail -n 1 "$into/npm.log")" >&2; exit 69; }
    touch "$into/.installed"
fi
echo "$into"
