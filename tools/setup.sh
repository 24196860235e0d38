#!/bin/sh
# Installs what is missing to build ward, or with `test` to test it, from the distribution: Debian 12, Ubuntu 22.04
# and later.
#
#   tools/setup.sh [build|test]
#
# What is there already stays as it is; where nothing is missing this does nothing, on any system.
set -eu

what=${1:-build}
case $what in
build | test) ;;
*)
    echo "usage: tools/setup.sh [build|test]" >&2
    exit 2
    ;;
esac

missing=""

# need_command COMMAND PACKAGE
need_command() {
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

# need_library NAME-IN-PKG-CONFIG PACKAGE
need_library() {
    pkg-config --exists "$1" 2>/dev/null || missing="$missing $2"
}

need_command make make
need_command "${CC:-gcc}" gcc
need_command pkg-config pkg-config
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
need_library yajl libyajl-dev
need_library libjpeg libjpeg-dev
need_library libpng libpng-dev
need_library libexif libexif-dev
need_library libedit libedit-dev
need_library libseccomp libseccomp-dev
need_library nettle nettle-dev
need_library libsodium libsodium-dev
if [ "$what" = test ]; then
    need_library cmocka libcmocka-dev
    need_command python3 python3
    need_command g++ g++       # the public header is compiled as C++ too
    need_command strace strace # shows that a run opens no socket
    need_command minisign minisign # bundles and their keys are held against it
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: missing:$missing" >&2
    echo "setup: these are the names of Debian's packages, but there is no apt-get here: install their like by hand" >&2
    exit 1
fi
root=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "setup: missing:$missing" >&2
        echo "setup: not root, and there is no sudo: as root, run: apt-get install$missing" >&2
        exit 1
    fi
    root="sudo"
    [ -t 0 ] || root="sudo -n" # nobody could type a password
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
install_missing() {
    # shellcheck disable=SC2086 # the lists are words
    $root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends $missing
}
echo "setup: installing$missing"
# A list of packages that is old or absent makes the first attempt fail; only then is it fetched.
if ! install_missing >"$log" 2>&1; then
    $root apt-get -q update >>"$log" 2>&1 || true
    if ! install_missing >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "setup: the packages could not be installed; run as root: apt-get update && apt-get install$missing" >&2
        exit 1
    fi
fi
