#!/usr/bin/env python3
"""Runs ward on the golden vectors and compares it with transformers' float32 answers. Prints TAP.

    run.py WARD_BINARY [--filter TEXT]      TEXT is looked for in CHECKPOINT/CASE/KERNELS

Every case of tests/vectors/models/*/golden.json is asked three times. The prompt ids must be equal each time, the
greedy ids too, and the log-probabilities of float32's 20 likeliest tokens at every step must be within a limit:

    none   plain C, float32 throughout: within 0.005
    avx2   float32 inputs, float16 KV cache: within 0.05
    best   what this machine has: within the error of transformers' own bfloat16 run on the same case

Except with `none`, a greedy token may differ where float32 has the two candidates closer together than the limit allows
to tell apart; the steps after it have another history and are not compared.
"""

import argparse
import glob
import json
import math
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
KERNELS = ("none", "avx2", "best")
ASKED = 32  # likeliest tokens asked of ward: more than the 20 compared, because their order may differ


def prepare_messages(messages):
    """The messages with the paths of images made absolute."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        if isinstance(message["content"], list):
            for part in message["content"]:
                if part["type"] == "image_url":
                    part["image_url"]["url"] = os.path.join(HERE, part["image_url"]["url"])
    return messages


def run_ward(ward, checkpoint, case, kernels):
    """The JSON that `ward run` prints for a case; a string says what went wrong."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(prepare_messages(case["messages"]), file)
        file.flush()
        command = [ward, "run", "-m", checkpoint, "--messages", file.name, "-n", str(len(case["ids"])), "--ignore-eos",
                   "--logprobs", str(ASKED), "--json"] + ([] if kernels == "best" else ["--cpu-mask", kernels])
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "no answer within 300 seconds"
    if done.returncode != 0:
        return f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        return f"stdout is not one JSON object: {error}"


def compare_step(golden, step):
    """The largest error on the golden tokens of one step. Of a token that ward does not list, only a bound is known: it
    is no likelier than the last one listed."""
    listed = {entry["id"]: entry["logprob"] for entry in step["top"]}
    if not all(math.isfinite(p) for p in listed.values()):
        return math.inf
    last = step["top"][-1]["logprob"]
    return max(abs(listed[i] - p) if i in listed else max(0.0, p - last)
               for i, p in zip(golden["ids"], golden["logprobs"]))


def first_difference(a, b):
    return next((at for at, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def compare_case(case, answer, limit, exact):
    """(fault or None, largest error, steps compared)"""
    if answer["prompt_ids"] != case["prompt_ids"]:
        at = first_difference(answer["prompt_ids"], case["prompt_ids"])
        found, expected = ([len(ids), *ids[at:at + 6]] for ids in (answer["prompt_ids"], case["prompt_ids"]))
        return (f"prompt ids differ at {at}: {found[1:]}... of {found[0]}, expected {expected[1:]}... of {expected[0]}",
                0.0, 0)
    ids, steps = answer["ids"], answer["logprobs"]
    if len(ids) != len(case["ids"]) or len(steps) != len(ids):
        return f"{len(ids)} ids and {len(steps)} log-probabilities, expected {len(case['ids'])} of both", 0.0, 0
    worst = 0.0
    for at, (golden, step) in enumerate(zip(case["top"], steps)):
        if step["id"] != ids[at] or len(step["top"]) != ASKED:
            return f"step {at}: logprobs holds id {step['id']} and {len(step['top'])} tokens", worst, at
        error = compare_step(golden, step)
        worst = max(worst, error)
        if error > limit:
            return f"step {at}: error {error:.6f}, limit {limit:.6f}", worst, at
        if ids[at] != case["ids"][at]:
            chosen = dict(zip(golden["ids"], golden["logprobs"])).get(ids[at], float("-inf"))
            gap = golden["logprobs"][0] - chosen
            if exact or gap > 2 * limit:
                return f"step {at}: id {ids[at]}, expected {case['ids'][at]}, {gap:.6f} likelier", worst, at
            return None, worst, at + 1
    return None, worst, len(ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ward", help="the ward binary")
    parser.add_argument("--filter", default="", help="only tests whose name holds this")
    options = parser.parse_args()
    tests = []
    for path in sorted(glob.glob(os.path.join(HERE, "models", "*", "golden.json"))):
        with open(path, encoding="utf-8") as file:
            cases = json.load(file)["cases"]
        folder = os.path.dirname(path)
        tests += [(f"{os.path.basename(folder)}/{case['name']}/{kernels}", folder, case, kernels)
                  for case in cases for kernels in KERNELS]
    tests = [test for test in tests if options.filter in test[0]]
    print(f"1..{len(tests)}")
    failed = not tests
    for number, (name, folder, case, kernels) in enumerate(tests, 1):
        limit = {"none": 0.005, "avx2": 0.05, "best": case["bf16_error"]}[kernels]
        answer = run_ward(options.ward, folder, case, kernels)
        if isinstance(answer, str):
            fault = answer
        elif kernels != "best" and answer["kernels"] != kernels:
            print(f"ok {number} - {name} # SKIP this machine has no {kernels}", flush=True)
            continue
        else:
            fault, worst, steps = compare_case(case, answer, limit, kernels == "none")
        if fault:
            failed = True
            print(f"not ok {number} - {name}\n# {fault}", flush=True)
        else:
            measured = f"{steps} steps with {answer['kernels']}, error {worst:.6f}, limit {limit:.6f}"
            print(f"ok {number} - {name}: {measured}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
