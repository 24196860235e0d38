#!/bin/sh
# Nothing leaves the machine: tests/check_offline.sh BUILD
set -u
cd "$(dirname "$0")/.."
. tests/tap.sh
ward=$1/ward
film=$(ls examples/*.png | head -n 1)
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT

describe_film() {
    "$@" "$ward" run -m models/phantom -i "$film" "Describe this X-ray."
}

calls='socket|socketpair|connect|bind|listen|accept4?|sendto|sendmsg|recvfrom|getaddrinfo|gethostby[a-z]*'

imports_no_network() {
    for file in "$ward" "$1/libward.so"; do
        ! nm -D --undefined-only "$file" | grep -wE "($calls)(@.*)?" || return 1
    done
}

opens_no_socket() {
    describe_film strace -f -e trace=%network -o "$trace" || return 1
    # what strace writes of a program without such calls: signals and the end of each thread
    grep -q 'exited with 0' "$trace" && ! grep -vE '^[0-9]+ +(\+\+\+|---)' "$trace"
}

plan 3
check "the program and the library import no function of the network" imports_no_network "$1"
name="strace of a run shows no call of the network"
if ! command -v strace >/dev/null 2>&1; then
    skip "$name" "there is no strace"
elif ! strace -f -o /dev/null true 2>/dev/null; then
    skip "$name" "tracing is not permitted here"
else
    check "$name" opens_no_socket
fi
name="a run needs no network: it answers in a network namespace of its own"
if unshare -n true 2>/dev/null; then
    check "$name" describe_film unshare -n
elif unshare -rn true 2>/dev/null; then # not root: in a user namespace
    check "$name" describe_film unshare -rn
else
    skip "$name" "namespaces are not permitted here"
fi
done_testing
