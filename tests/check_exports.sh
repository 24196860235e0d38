#!/bin/sh
# What others see of ward: the header by itself in each language, and only ward_ symbols: tests/check_exports.sh BUILD
set -u
cd "$(dirname "$0")/.."
. tests/tap.sh
build=$1
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

declared() {
    "$cc" -E -P -Iinclude include/ward.h | tr '\n' ' ' | grep -o '\<ward_[a-z_]*(' | tr -d '(' |
        grep -v '_fn$' | sort -u # those are types
}

# Names that a linker could take from a library.
defined() {
    nm "$@" | awk 'NF == 3 && $2 ~ /[A-Z]/ && $3 !~ /^__(asan|odr_asan|ubsan|tsan)/ { print $3 }' | sort -u
}

exports_are_the_header() {
    declared >"$work/declared"
    defined "$@" >"$work/defined"
    [ -s "$work/declared" ] && diff "$work/declared" "$work/defined"
}

header_compiles() {
    "$@" -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only
}

printf '#include <ward.h>\nint main(void) { return WARD_OK; }\n' >"$work/use.c"
cp "$work/use.c" "$work/use.cc"

plan 5
check "the shared library exports the functions of ward.h only" exports_are_the_header -D "$build/libward.so"
check "the static library exports the functions of ward.h only" exports_are_the_header "$build/libward.a"
check "ward.h compiles alone as C99" header_compiles "$cc" -std=c99 "$work/use.c"
check "ward.h compiles alone as C11" header_compiles "$cc" -std=c11 "$work/use.c"
if command -v "${CXX:-g++}" >/dev/null 2>&1; then
    check "ward.h compiles alone as C++" header_compiles "${CXX:-g++}" -std=c++11 "$work/use.cc"
else
    skip "ward.h compiles alone as C++" "there is no ${CXX:-g++}"
fi
done_testing
