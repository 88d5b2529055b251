#!/bin/sh
# venv.sh FOLDER: a virtual environment there, of Python 3.11 or newer ($PYTHON is tried first), on a machine that can
# also compile against it, and has the commands $NEEDS (packages of the same names). What Debian or Ubuntu lack is
# installed when root asks; anybody else reads the line to type.
set -eu
folder=$1
packages="gcc libc6-dev python3-dev python3-venv${NEEDS:+ $NEEDS}"

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

choose() {
    for each in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if command -v "$each" >/dev/null && new_enough "$each"; then
            python=$each
            return
        fi
    done
    python=
}

# What is missing, in words; nothing when all is there.
missing() {
    choose
    if [ -z "$python" ]; then
        echo "Python 3.11 or newer"
        return
    fi
    for each in ${NEEDS:-}; do
        command -v "$each" >/dev/null || echo "$each"
    done
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "ensurepip"
    compiler=$(command -v cc || command -v gcc || true)
    if [ -z "$compiler" ]; then
        echo "a C compiler"
    elif ! printf '#include <Python.h>\n' | $compiler -x c -E \
        -I"$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')" - >/dev/null 2>&1; then
        echo "Python.h or the C library's headers"
    fi
}

lack=$(missing | paste -sd, | sed 's/,/, /g')
if [ -n "$lack" ] && [ -e /etc/debian_version ]; then
    if [ "$(id -u)" = 0 ]; then
        echo "missing: $lack; installing $packages (root, apt-get)"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
        lack=$(missing | paste -sd, | sed 's/,/, /g')
    else
        echo "missing: $lack; this installs it: sudo apt-get install -y $packages" >&2
        exit 1
    fi
fi
if [ -n "$lack" ]; then
    echo "missing: $lack (PYTHON=/path/to/python3 chooses another Python)" >&2
    exit 1
fi
choose
rm -rf "$folder"
"$python" -m venv "$folder"
