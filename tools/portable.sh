#!/bin/sh
# Puts a built ward, what it is checked by on a card, and the shared libraries of both in a folder that runs on another
# machine of the same kind with the same or a later C library: tools/portable.sh DIR [BUILD]
# There: DIR/tools/card_report.py. (For patients, ward bundle makes a signed one, without tests: docs/airgap.md.)
set -eu
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
build=${2:-$root/build}
out=$1
if [ -e "$out" ]; then
    echo "portable.sh: $out is there already" >&2
    exit 1
fi
programs="ward tests/checkcard tests/test_session tests/unlocked.so"
for program in $programs; do
    if [ ! -x "$build/$program" ]; then
        echo "portable.sh: $build/$program is not there: make test-programs builds it" >&2
        exit 1
    fi
done

mkdir -p "$out/build/tests" "$out/lib/ward" "$out/tests/cli" "$out/models" "$out/examples" "$out/tools"
for program in $programs; do
    "${STRIP:-strip}" -o "$out/build/$program" "$build/$program"
    # The C library and its loader are the system's: a driver that is loaded belongs to them.
    ldd "$build/$program" | awk '$2 == "=>" && $1 !~ /^(linux-vdso|ld-linux|libc|libm|libmvec|libpthread|libdl|librt)[.-]/ { print $3 }'
done | sort -u | while read -r library; do
    cp -L "$library" "$out/lib/ward/"
done
cp -R "$root/tests/vectors" "$out/tests/"
cp "$root/tests/cli/harness.py" "$root/tests/cli/test_cuda.py" "$out/tests/cli/"
cp -R "$root/models/phantom" "$out/models/"
cp "$root/examples/phantom-effusion.png" "$out/examples/"
cp "$root"/tools/card_*.py "$root/tools/refused_calls.py" "$out/tools/"
find "$out" -name __pycache__ -prune -exec rm -r {} +
