#!/bin/sh
# Installs or updates ward and its model from this bundle, without a network.
#
#   sh install.sh --key KEY [--prefix DIR] [--verifier WARD | --list-hash SHA256]
#   sh install.sh --rollback [--prefix DIR]
#
#   --key KEY          public key of whoever made the bundle: a file, or its second line. It must not come from the
#                      medium that the bundle came on
#   --prefix DIR       where versions are kept side by side (/opt/ward); DIR/current is the one in use
#   --verifier WARD    a ward that is trusted already (default: DIR/current/bin/ward, if there is one)
#   --list-hash HEX    SHA-256 of SHA256SUMS that came by the way that the key came; takes the verifier's place
#   --rollback         go back to the version before
#
# Every byte is verified before anything of the bundle runs: by a trusted ward, by minisign and sha256sum, or by the
# list's hash and sha256sum. The new version is complete before DIR/current points to it.
set -eu

prefix=/opt/ward key='' verifier='' list_hash='' rollback=''
here=$(dirname "$0")

fail() {
    printf 'install: %s\n' "$1" >&2
    exit "${2:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
    --key | --prefix | --verifier | --list-hash)
        [ $# -ge 2 ] || fail "$1 takes a value" 2
        case $1 in
        --key) key=$2 ;;
        --prefix) prefix=$2 ;;
        --verifier) verifier=$2 ;;
        --list-hash) list_hash=$2 ;;
        esac
        shift 2
        ;;
    --rollback)
        rollback=yes
        shift
        ;;
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) fail "there is no option $1; --help lists them" 2 ;;
    esac
done

[ -e /proc/self/exe ] || fail "/proc is not mounted; a program finds its libraries by it"

if [ -n "$rollback" ]; then
    [ -x "$prefix/current/bin/ward" ] || fail "$prefix: no version is installed there"
    exec "$prefix/current/bin/ward" bundle rollback --prefix "$prefix"
fi

[ -n "$key" ] || fail "whose bundle may it be? --key gives the public key, which came apart from it" 2
[ -n "$verifier" ] || [ ! -x "$prefix/current/bin/ward" ] || verifier=$prefix/current/bin/ward

# The signed list, by what the system has. Only the list is believed then, and only what it names may be there.
verify_list() {
    if [ -n "$list_hash" ]; then
        command -v sha256sum >/dev/null || fail "--list-hash needs sha256sum"
        [ "$(sha256sum <SHA256SUMS | cut -d ' ' -f 1)" = "$list_hash" ] ||
            fail "SHA256SUMS is not the list that --list-hash names"
    elif command -v minisign >/dev/null && command -v sha256sum >/dev/null; then
        if [ -f "$key" ]; then
            minisign -q -V -m SHA256SUMS -p "$key" || fail "SHA256SUMS is not signed by the key"
        else
            minisign -q -V -m SHA256SUMS -P "$key" || fail "SHA256SUMS is not signed by the key"
        fi
    else
        fail "nothing here can verify the bundle: a trusted ward (--verifier), minisign, or --list-hash is expected"
    fi
}

verify_files() {
    listed=$(cut -c 67- SHA256SUMS | LC_ALL=C sort)
    found=$(find . -type f ! -path ./SHA256SUMS ! -path ./SHA256SUMS.minisig | cut -c 3- | LC_ALL=C sort)
    [ -z "$(find . ! -type f ! -type d)" ] && [ "$listed" = "$found" ] ||
        fail "the bundle holds other files than SHA256SUMS lists"
    sha256sum --quiet --strict -c SHA256SUMS >/dev/null || fail "a file is not what SHA256SUMS says"
}

if [ -n "$verifier" ]; then
    exec "$verifier" bundle install "$here" --key "$key" --prefix "$prefix"
fi
# A relative path of the key or prefix is meant from where the caller is.
case $key in /*) ;; *) [ ! -f "$key" ] || key=$(pwd)/$key ;; esac
case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
cd "$here"
verify_list
verify_files
./bin/ward --version >/dev/null 2>&1 || fail "bin/ward does not run here: a medium mounted noexec, another machine, or an older C library than \
$(sed -n 's/.*"libc": "\(.*\)".*/\1/p' bundle.json) ($(getconf GNU_LIBC_VERSION 2>/dev/null || echo unknown) is here)"
exec ./bin/ward bundle install . --key "$key" --prefix "$prefix"
