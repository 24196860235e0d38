#!/usr/bin/env python3
"""The runner of the tests counts truly: check_run.py. Prints TAP."""

import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
loader = importlib.machinery.SourceFileLoader("run", os.path.join(HERE, "run"))
run = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
loader.exec_module(run)

# what a program does (for sh), then how many passed, failed and were skipped
CASES = [
    ("all pass", "echo 1..2; echo ok 1 - a; echo ok 2 - b", (2, 0, 0)),
    ("a failure is counted once, whatever the status", "echo 1..2; echo not ok 1; echo ok 2 - b; exit 1", (1, 1, 0)),
    ("a failure is counted when the exit status hides it", "echo 1..1; echo not ok 1 - a", (0, 1, 0)),
    ("an exit status without a failure is one", "echo 1..1; echo ok 1 - a; exit 3", (1, 1, 0)),
    ("a crash fails what is missing", "echo 1..3; echo ok 1 - a; kill -SEGV $$", (1, 2, 0)),
    ("silence fails what is missing", "echo 1..3; echo ok 1 - a", (1, 2, 0)),
    ("more results than planned are a failure", "echo 1..1; echo ok 1 - a; echo ok 2 - b", (2, 1, 0)),
    ("no plan is a failure", "echo ok 1 - a", (1, 1, 0)),
    ("no output is a failure", "true", (0, 1, 0)),
    ("a skipped one is neither", "echo 1..2; echo 'ok 1 - a # SKIP no b here'; echo ok 2 - c", (1, 0, 1)),
    ("a skipped one as cmocka writes it", "echo 1..1; echo 'not ok 1 # SKIP a'", (0, 0, 1)),
    ("a skipped program", "echo '1..0 # SKIP no b here'", (0, 0, 1)),
    ("what is not TAP is not counted", "echo 1..1; echo; echo '# not ok 1'; echo okay; echo ok 1 - a", (1, 0, 0)),
]


def main():
    failed = False
    print(f"1..{len(CASES) + 1}")
    for number, (name, script, expected) in enumerate(CASES, 1):
        outcome = run.judge(*run.run_program(["sh", "-c", script], dict(os.environ)))
        got = len(outcome.passed), len(outcome.failed), len(outcome.skipped)
        failed = failed or got != expected
        print(f"{'ok' if got == expected else 'not ok'} {number} - {name}")
        if got != expected:
            print(f"# passed, failed, skipped: got {got}, expected {expected}")
    fault = run.run_program(["./not-there"], dict(os.environ))[1]
    failed = failed or not fault
    print(f"{'ok' if fault else 'not ok'} {len(CASES) + 1} - a program that is not there is a failure")
    sys.exit(failed)


if __name__ == "__main__":
    main()
