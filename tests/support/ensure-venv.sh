#!/usr/bin/env bash
# ensure-venv.sh PYTHON DIR: a virtual environment, with Debian's python3-venv installed where that is what is missing.
set -euo pipefail
python=$1
dir=$2
"$python" -m venv "$dir" 2>/dev/null && exit 0
rm -rf "$dir"
package="python$("$python" -c 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor}")')-venv"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null && as_root=(sudo -n) || {
        echo "make: $python cannot make a virtual environment; install it with  sudo apt-get install $package" >&2
        exit 69
    }
fi
if command -v apt-get >/dev/null; then
    "${as_root[@]}" apt-get update -qq >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
fi
exec "$python" -m venv "$dir"
