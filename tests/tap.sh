# For test programs in shell: . tests/tap.sh; plan N; then N times check NAME COMMAND... or skip NAME REASON;
# done_testing.
number=0
failures=0

plan() {
    echo "1..$1"
}

# Runs a command; its output is shown when it fails.
check() {
    name=$1
    shift
    number=$((number + 1))
    if output=$("$@" 2>&1); then
        echo "ok $number - $name"
    else
        echo "not ok $number - $name"
        printf '%s\n' "$output" | sed 's/^/# /'
        failures=$((failures + 1))
    fi
}

skip() {
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}

done_testing() {
    [ "$failures" = 0 ]
}
