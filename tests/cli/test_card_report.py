#!/usr/bin/env python3
"""tools/card_report.py and tools/refused_calls.py on the card that tests/cuda emulates: test_card_report.py WARD. Prints TAP."""
import copy
import json
import os
import subprocess
import sys
import tempfile

from harness import PHANTOM, ROOT, WARD, Skip, equal, run, run_tests, scratch, test

sys.path.insert(0, os.path.join(ROOT, "tools"))
import card_goals  # noqa: E402

BUILD = os.path.dirname(WARD)
ESCAPE = os.path.join(BUILD, "tests", "escape.so")


def tool(name, *arguments, **more):
    return subprocess.run([sys.executable, os.path.join(ROOT, "tools", name), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, **more)


def report(*arguments, status=0, **environment):
    """The report of the emulated card."""
    out = tempfile.mkdtemp(dir=scratch)
    done = tool("card_report.py", "--emulated", "--build", BUILD, "--out", out, *arguments, env={**os.environ, **environment})
    if b"has no kernels for NVIDIA cards" in done.stdout:
        raise Skip("this build has no kernels for NVIDIA cards: nvcc is not here")
    equal(done.returncode, status, f"exit status ({done.stdout!r}, {done.stderr!r})")
    with open(os.path.join(out, "report.json"), encoding="utf-8") as file, \
            open(os.path.join(out, "report.md"), encoding="utf-8") as page:
        return json.load(file), page.read()


def checks(document):
    return {check["name"]: check for check in document["checks"]}


@test
def the_emulated_card_goes_through():
    found, page = report()
    equal({name: check["status"] for name, check in checks(found).items()},
          dict.fromkeys(("the card", "every operation", "the lock", "bf16", "two processes, the same seed", "other cards"), "passed"),
          "checks")
    measured = found["measured"]["bf16"]
    copy_gbs, peak = card_goals.limits(found)
    goals = {goal["name"]: goal for goal in found["goals"]}
    decode = measured["limits"]["token_bytes"] * measured["throughput"]["decode_tps"] / copy_gbs
    assert abs(goals["decode, bf16: of copying"]["measured"] - 100 * decode) < 1e-6, goals
    vision = measured["limits"]["image_operations"] / measured["stages"]["vision"]["mean"] * 1e3 / peak
    assert abs(found["shares"]["vision"] - vision) < 1e-9 and abs(found["shares"]["read"]["bf16"] - decode) < 1e-9, found["shares"]
    equal({row["device"] for row in found["projection"]}, set(card_goals.OTHERS), "the projection")
    for words in ("Emulated Card", "no figure here means anything", "A projection: Emulated Card, of its measured limits", "RTX 3060"):
        assert words in page, page
    for command in found["commands"]:
        assert scratch not in command and ROOT not in command, command


@test
def a_card_that_fails_is_told():
    found, page = report("--only", "the lock", status=1, WARD_EMULATED_FAIL="skip:vector_bf16")
    equal({name: check["status"] for name, check in checks(found).items()}, {"the card": "passed", "the lock": "failed",
                                                                                     "other cards": "skipped"}, "checks")
    assert "computes wrongly" in checks(found)["the lock"]["found"] and "without the lock as well" in page, page
    assert not can_trace() or "clone3" in "".join(found["refused"]), found["refused"] # which falls back to clone: the rest is what the card needs
    assert "unlocked" not in found, found
    found, _ = report(status=1, WARD_EMULATED_FAIL="none")
    equal(list(checks(found)), ["the card"], "checks without a card")
    assert "finds no card" in checks(found)["the card"]["found"], found["checks"]


@test
def a_driver_that_does_not_start_behind_the_lock_is_measured_without_it():
    found, page = report("--only", "every operation", status=1, WARD_EMULATED_FAIL="lock")
    equal({name: check["status"] for name, check in checks(found).items()}, {"the card": "failed", "every operation": "passed",
                                                                                     "other cards": "skipped"}, "checks")
    assert found["unlocked"] and found["limits"]["copy_gbs"] > 0, found
    assert "not so without the lock" in page and "measured without it" in page, page
    assert not can_trace() or "socket(0x1, 0x1, 0x0): EPERM" in "".join(found["refused"]), found["refused"]


@test
def goals_are_judged():
    """Figures at a goal meet it, figures beside it do not, and what was not measured is neither."""
    stages = {"image": {"mean": 10}, "vision": {"mean": 20}, "prefill": {"mean": 9}, "first_token": {"mean": 1}, "token": {"mean": 1}}
    limits = {"token_bytes": 10**9, "image_operations": 9e12, "prompt_operations": 1e12,
              "measured": {"copy_gbs": 1000.0, "multiply_gops": {"bf16": 1e6}}}
    entry = {"limits": limits, "throughput": {"decode_tps": 800.0}, "stages": stages, "latency_ms": {"mean": 500},
             "memory": {"load_peak": 1e9, "steady": 9.0e9, "with_image": None}}
    document = {"limits": limits["measured"], "published": {"read_gbs": 2000, "tflops": 2000}, "card": {"name": "A Card"}, "checks": [],
                "measured": {"bf16": entry}, "peers": {"pipeline": {"mean_ms": 4000}}}

    def met(found):
        card_goals.judge(found)
        return [goal["met"] for goal in found["goals"]]
    equal(met(document), [True, None, None, True, True, True, True], "at the goals")
    worse = copy.deepcopy(document)
    worse["measured"]["bf16"]["throughput"]["decode_tps"] = 799
    worse["measured"]["bf16"]["latency_ms"]["mean"] = 501
    worse["measured"]["bf16"]["memory"]["steady"] = 9.01e9
    worse["measured"]["bf16"]["stages"]["vision"]["mean"] = 20.1
    equal(met(worse), [False, None, None, False, False, False, False], "beside them")
    faster = {**document, "peers": {"copy": {"gbs": 1100}, "matmul": {"tflops": 1200}}} # limits by others count, too
    equal(met(faster), [False, None, None, False, None, True, True], "with PyTorch's limits")
    equal(card_goals.shares(document), {"of": "A Card, of its published limits", "vision": 0.225, "prefill": 1e12 / 9 * 1e3 / 2e15,
                                        "read": {"bf16": 0.4}}, "shares")
    document["checks"] = [{"name": "golden answers", "status": "failed"}, {"name": "two processes, the same seed", "status": "skipped"}]
    equal(met(document)[-2:], [False, None], "checks")


@test
def projections_without_a_card():
    done = tool("card_report.py", "--projection", "--build", BUILD)
    text = done.stdout.decode()
    equal(done.returncode, 0, f"exit status ({done.stderr})")
    equal(text.count("### A projection"), 2, "the limits and the goals")
    for device in card_goals.OTHERS:
        assert device in text, text
    assert "does not fit" in text, text # bf16 on a card of 8 GB


@test
def a_folder_for_another_machine():
    """Everything that its programs are linked with but the C library is there, and they answer as before."""
    out = os.path.join(scratch, "portable")
    portable = [os.path.join(ROOT, "tools", "portable.sh"), out, BUILD]
    done = subprocess.run(portable, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    equal((done.returncode, done.stderr), (0, b""), "making it")
    libraries = os.path.join(out, "lib", "ward")
    for program in ("ward", "tests/checkcard", "tests/test_session"):
        linked = subprocess.run(["ldd", os.path.join(out, "build", program)], stdout=subprocess.PIPE, check=True,
                                env={**os.environ, "LD_LIBRARY_PATH": "" if program == "ward" else libraries}).stdout.decode()
        found = [line.split()[2] for line in linked.splitlines() if "=>" in line and line.split()[2].startswith("/")]
        others = [path for path in found if not os.path.realpath(path).startswith(os.path.realpath(libraries))]
        equal([name for name in map(os.path.basename, others) if not name.startswith(("libc.", "libm.", "libpthread.", "libdl."))], [],
              f"libraries of {program} that are not in the folder")
    asked = ["run", "-m", PHANTOM, "--device", "cpu", "-n", "8", "Describe this X-ray."]
    equal(subprocess.run([os.path.join(out, "build", "ward"), *asked], stdout=subprocess.PIPE, check=True).stdout, run(*asked).stdout,
          "the answer")
    equal(subprocess.run(portable, stderr=subprocess.PIPE).returncode, 1, "a folder that is there")


def can_trace():
    """Whether one program may trace another here."""
    return b"does not let one program trace" not in tool("refused_calls.py", "true").stderr


@test
def what_the_lock_refuses_is_named():
    if not can_trace():
        raise Skip("this system does not let one program trace another")
    done = tool("refused_calls.py", WARD, "doctor", "--device", "M1", env={**os.environ, "LD_PRELOAD": ESCAPE})
    equal(done.returncode, run("doctor", "--device", "M1").returncode, "exit status")
    for words in ("socketpair(0x1, 0x1, 0x0): EPERM", "protection 0x"):
        assert words in done.stderr.decode(), done.stderr
    quiet = tool("refused_calls.py", "true")
    equal((quiet.returncode, quiet.stderr), (0, b"nothing was refused\n"), "a program that is refused nothing")
    equal(tool("refused_calls.py", os.path.join(scratch, "not-there")).returncode, 127, "a program that is not there")


if __name__ == "__main__":
    sys.exit(run_tests())
