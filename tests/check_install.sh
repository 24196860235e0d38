#!/bin/sh
# An installed ward, used as a stranger would: tests/check_install.sh BUILD
set -u
cd "$(dirname "$0")/.."
. tests/tap.sh
build=$1
cc=${CC:-gcc}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
lib="$stage/opt/ward/lib"
export PKG_CONFIG_SYSROOT_DIR="$stage" PKG_CONFIG_PATH="$lib/pkgconfig"

installed() {
    make --no-print-directory --silent "$1" BUILD="$build" DESTDIR="$stage" PREFIX=/opt/ward
}

# The example's answer is the program's own.
example_answers() {
    theirs=$(LD_LIBRARY_PATH="$lib" "$stage/ask" models/phantom "$film" "Describe this X-ray.") &&
        ours=$("$stage/opt/ward/bin/ward" run -m models/phantom -i "$film" "Describe this X-ray.") &&
        echo "$theirs" && [ -n "$ours" ] && [ "${theirs#"$ours"}" != "$theirs" ]
}

shared_example() {
    # shellcheck disable=SC2046 # flags are words
    "$cc" -std=c11 -Wall -Wextra -Werror examples/ask.c $(pkg-config --cflags --libs ward) -o "$stage/ask" &&
        readelf -d "$stage/ask" | grep -q 'NEEDED.*libward\.so\.[0-9]' && example_answers
}

static_example() {
    # shellcheck disable=SC2046
    "$cc" -std=c11 -Wall -Wextra -Werror examples/ask.c \
        $(pkg-config --cflags --libs --static ward | sed 's/-lward\b/-l:libward.a/') -o "$stage/ask" &&
        ! readelf -d "$stage/ask" | grep -q 'NEEDED.*libward' && example_answers
}

nothing_is_left() {
    installed uninstall && left=$(find "$stage/opt" ! -type d) && echo "$left" && [ -z "$left" ]
}

film=$(ls examples/*.png | head -n 1)
plan 5
check "make install puts everything under DESTDIR and PREFIX" installed install
check "the installed program runs" "$stage/opt/ward/bin/ward" --version
check "examples/ask.c builds with pkg-config against the shared library and answers as ward run does" shared_example
check "examples/ask.c builds with pkg-config against the static library and answers as ward run does" static_example
check "make uninstall leaves nothing" nothing_is_left
done_testing
