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

network='socket|socketpair|connect|bind|listen|accept4?|send|sendto|sendm?msg|recv|recvfrom|recvm?msg|shutdown'
network="$network|getaddrinfo|getnameinfo|gethostby[a-z0-9_]*|getservby[a-z_]*|res_n?(init|query|search|send)"
# Users are looked up in a directory on the network, if the system is set up so.
others='exec[lv]p?e?|fexecve|system|popen|posix_spawnp?|wordexp|vfork|get(pw|gr)[a-z_]*|initgroups'

# imports FUNCTIONS FILE...
imports() {
    functions=$1
    shift
    nm -D --undefined-only "$@" | sed 's/@.*//' | grep -E " U ($functions)\$"
}

imports_no_network() {
    ! imports "$network" "$ward" "$1/libward.so"
}

imports_no_programs() {
    ! imports "$others" "$ward" "$1/libward.so"
}

# The libraries of NVIDIA's driver, by their names and nothing else, before the process is locked.
loads_the_driver_alone() {
    [ "$(grep -rl dlopen src cli | sort | tr '\n' ' ')" = "src/cuda/driver.c src/cuda/nvml.c " ] &&
        [ "$(grep -h dlopen\( src/cuda/*.c | sed 's/.*dlopen(\([A-Za-z]*\),.*/\1/' | sort | tr '\n' ' ')" = "COMPILER LIBRARY LIBRARY " ] &&
        [ "$(grep -ho '"lib[a-z-]*\.so\.1"' src/cuda/*.c | sort | tr '\n' ' ')" = \
            '"libcuda.so.1" "libnvidia-ml.so.1" "libnvidia-ptxjitcompiler.so.1" ' ]
}

# All but the C library, which has everything and is asked for nothing of it.
libraries_import_no_network() {
    libraries=$(ldd "$ward" | awk '$2 == "=>" && $1 !~ /^(libc|libm|ld-.*)\.so/ { print $3 }')
    # shellcheck disable=SC2086 # the list is words
    [ -n "$libraries" ] && ! imports "$network" $libraries
}

opens_no_socket() {
    describe_film strace -f -e trace=%network -o "$trace" || return 1
    # what strace writes of a program without such calls: signals and the end of each thread
    grep -q 'exited with 0' "$trace" && ! grep -vE '^[0-9]+ +(\+\+\+|---)' "$trace"
}

plan 6
check "the program and the library import no function of the network" imports_no_network "$1"
check "nor one that starts programs or looks up users" imports_no_programs "$1"
check "the only code that is loaded at run time is NVIDIA's driver" loads_the_driver_alone
check "the libraries that the program loads import no function of the network" libraries_import_no_network
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
