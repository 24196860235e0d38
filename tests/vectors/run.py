#!/usr/bin/env python3
"""Runs ward on the golden vectors and compares it with transformers' float32 answers. Prints TAP.

    run.py WARD_BINARY [--filter TEXT] [--quick] [--device cpu|emulated|card]

TEXT is looked for in CHECKPOINT/CASE/KERNELS. --device: the processor; an NVIDIA card emulated by the processor
(tests/cuda), whose kernels are "cuda"; the card of this machine.

Every case is asked several times. The prompt ids must be equal each time, the greedy ids too, and the log-probabilities
of float32's likeliest tokens at every step must be within a limit. For the checkpoints of models/*/golden.json:

    none   plain C, float32 throughout: within 0.005
    avx2   float32 and 13-bit fixed point inputs, float16 KV cache: within 0.05
    best   what this machine has: within the error of transformers' own bfloat16 run on the same case
    cuda   the same

For the files of gguf/*.json, which gguf_file.py writes, plain C must again be within 0.005 of float32 with the weights
as the file stores them. Each instruction set is held to llama.cpp with the same file. How large the error of one short
answer comes out is a matter of luck, so a single case may reach 1.5 times the largest error of llama.cpp over a dozen
conversations (with images: at least the error of transformers' bfloat16 run), and one more result for each set says
that over all cases with quantized weights its error is no larger than llama.cpp's: the geometric mean of the quotients
of the root mean squares.

Except with `none`, a greedy token may differ where float32 has the two candidates closer together than the limit allows
to tell apart; the steps after it have another history and are not compared.
"""

import argparse
import collections
import concurrent.futures
import glob
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile

import gguf_file

HERE = os.path.dirname(os.path.abspath(__file__))
CPU_SETS = ("avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx")
CUDA = "cuda"
ASKED = 32  # likeliest tokens asked of ward: more than are compared, because their order may differ
EXACT = 0.005  # what plain C may differ by; no limit is below it
QUICK_STEPS = 5  # of an answer on an emulated card, which takes its time
ONE_CASE, ALL_CASES = 1.5, 1.0  # times llama.cpp's error
Test = collections.namedtuple("Test", "name checkpoint case kernels limit")  # a folder, or one of gguf_file


def prepare_messages(messages):
    """The messages with the paths of images made absolute."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        if isinstance(message["content"], list):
            for part in message["content"]:
                if part["type"] == "image_url":
                    part["image_url"]["url"] = os.path.join(HERE, part["image_url"]["url"])
    return messages


def environment(ward, device):
    """What ward runs in: with the emulated driver before any other."""
    if device != "emulated":
        return None
    folder = os.path.join(os.path.dirname(os.path.abspath(ward)), "tests", "cuda")
    return {**os.environ, "LD_LIBRARY_PATH": folder}


def why_no_card(ward, device):
    """Why the device cannot be tested here, or None."""
    if device == "cpu":
        return None
    done = subprocess.run([ward, "run", "-m", os.path.join(HERE, "models", "flat"), "--device", "cuda", "-n", "1", "x"],
                          stdin=subprocess.DEVNULL, capture_output=True, env=environment(ward, device), timeout=300)
    said = done.stderr.decode(errors="replace").strip()
    reasons = ("has no kernels for NVIDIA cards", "no NVIDIA driver", "finds no card")
    return said if done.returncode == 1 and any(reason in said for reason in reasons) else None


def run_ward(ward, checkpoint, case, kernels, device):
    """The JSON that `ward run` prints for a case; a string says what went wrong."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(prepare_messages(case["messages"]), file)
        file.flush()
        command = [ward, "run", "-m", checkpoint, "--messages", file.name, "-n", str(len(case["ids"])), "--ignore-eos",
                   "--logprobs", str(ASKED), "--json", "--device", "cpu" if device == "cpu" else "cuda"]
        if kernels not in ("best", CUDA):
            command += ["--cpu-mask", kernels]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
                                  env=environment(ward, device))
        except subprocess.TimeoutExpired:
            return "no answer within 300 seconds"
    if done.returncode != 0:
        return f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        return f"stdout is not one JSON object: {error}"


def compare_step(golden, step):
    """The errors on the golden tokens of one step. Of a token that ward does not list, only a bound is known: it is no
    likelier than the last one listed."""
    listed = {entry["id"]: entry["logprob"] for entry in step["top"]}
    if not all(math.isfinite(p) for p in listed.values()):
        return [math.inf]
    last = step["top"][-1]["logprob"]
    return [abs(listed[i] - p) if i in listed else max(0.0, p - last)
            for i, p in zip(golden["ids"], golden["logprobs"])]


def first_difference(a, b):
    return next((at for at, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def compare_case(case, answer, limit, exact):
    """(fault or None, errors of the steps compared)"""
    if answer["prompt_ids"] != case["prompt_ids"]:
        at = first_difference(answer["prompt_ids"], case["prompt_ids"])
        found, expected = ([len(ids), *ids[at:at + 6]] for ids in (answer["prompt_ids"], case["prompt_ids"]))
        return (f"prompt ids differ at {at}: {found[1:]}... of {found[0]}, expected {expected[1:]}... of {expected[0]}",
                [])
    ids, steps = answer["ids"], answer["logprobs"]
    if len(ids) != len(case["ids"]) or len(steps) != len(ids):
        return f"{len(ids)} ids and {len(steps)} log-probabilities, expected {len(case['ids'])} of both", []
    errors = []
    for at, (golden, step) in enumerate(zip(case["top"], steps)):
        if step["id"] != ids[at] or len(step["top"]) != ASKED:
            return f"step {at}: logprobs holds id {step['id']} and {len(step['top'])} tokens", errors
        errors.append(compare_step(golden, step))
        if max(errors[-1]) > limit:
            return f"step {at}: error {max(errors[-1]):.6f}, limit {limit:.6f}", errors
        if ids[at] != case["ids"][at]:
            chosen = dict(zip(golden["ids"], golden["logprobs"])).get(ids[at], float("-inf"))
            gap = golden["logprobs"][0] - chosen
            if exact or gap > 2 * limit:
                return f"step {at}: id {ids[at]}, expected {case['ids'][at]}, {gap:.6f} likelier", errors
            break
    return None, errors


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def folder_tests(device):
    for path in sorted(glob.glob(os.path.join(HERE, "models", "*", "golden.json"))):
        folder = os.path.dirname(path)
        for case in read_json(path)["cases"]:
            of_cpu = (("none", EXACT), ("avx2", 0.05), ("best", case["bf16_error"]))
            for kernels, limit in of_cpu if device == "cpu" else ((CUDA, case["bf16_error"]),):
                yield Test(f"{os.path.basename(folder)}/{case['name']}/{kernels}", folder, case, kernels, limit)


def gguf_tests(device, quick):
    for name in gguf_file.CHECKPOINTS:
        golden = read_json(os.path.join(HERE, "gguf", f"{name}.json"))
        for case in golden["cases"][:1 if quick else None]:
            error = max(EXACT, ONE_CASE * golden.get("llama_error", 0), case.get("bf16_error", 0))
            for kernels in ("none", *CPU_SETS) if device == "cpu" else (CUDA,):
                yield Test(f"gguf/{name}/{case['name']}/{kernels}", name, case, kernels,
                           EXACT if kernels == "none" else error)


class Checkpoints:
    """Where a test's checkpoint lies; of the GGUF files the last one asked for is kept."""

    def __init__(self):
        self.name, self.folder = None, None

    def find(self, name):
        """(path, None), or (None, what is wrong)"""
        if name not in gguf_file.CHECKPOINTS:
            return name, None
        if self.name != name:
            self.close()
            self.name, self.folder = name, tempfile.TemporaryDirectory()
            paths = [path for path in gguf_file.write(self.folder.name, name) if path]
            self.same = [gguf_file.digest(path) for path in paths] == read_json(
                os.path.join(HERE, "gguf", f"{name}.json"))["sha256"]
        if not self.same:
            return None, "gguf_file.py does not write the file that transformers was asked about"
        return os.path.join(self.folder.name, f"{name}.gguf"), None

    def close(self):
        if self.folder:
            self.folder.cleanup()


class Ratios:
    """The errors of each instruction set in multiples of llama.cpp's, case by case."""

    def __init__(self):
        self.of_set = collections.defaultdict(list)

    def add(self, test, errors):
        spec = gguf_file.CHECKPOINTS.get(test.checkpoint, {"type": "bf16"})
        if spec["type"] not in gguf_file.FLOATS and "llama_rms" in test.case and test.kernels in (*CPU_SETS, CUDA):
            errors = list(itertools.chain.from_iterable(errors))
            rms = math.sqrt(sum(e * e for e in errors) / len(errors))
            self.of_set[test.kernels].append(rms / test.case["llama_rms"])

    def judge(self, kernels):
        """(fault or None, what was measured, or None where this machine has no such instructions)"""
        ratios = self.of_set[kernels]
        if not ratios:
            return None, None
        mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
        found = f"{mean:.3f} of llama.cpp's error over {len(ratios)} cases, limit {ALL_CASES}"
        return found if mean > ALL_CASES else None, found


def run_test(ward, path, test, device, ratios):
    """(fault or None, what was measured, or None where this machine has no such instructions)"""
    answer = run_ward(ward, path, test.case, test.kernels, device)
    if isinstance(answer, str):
        return answer, ""
    if test.kernels not in ("best", CUDA) and answer["kernels"] != test.kernels:
        return None, None
    fault, errors = compare_case(test.case, answer, test.limit, test.kernels == "none")
    worst = max(map(max, errors), default=0)
    if errors:
        ratios.add(test, errors)
    return fault, f"{len(errors)} steps with {answer['kernels']}, error {worst:.6f}, limit {test.limit:.6f}"


def each(judge, tests, device):
    """The tests and their results in order. An emulated card keeps one processor busy, so several run at once; what uses
    all processors, or a card, runs alone."""
    if device != "emulated":
        return tests, map(judge, tests)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return tests, list(pool.map(judge, tests))


def shortened(test, steps):
    """The test with the first steps of its answer only."""
    case = {**test.case, **{key: test.case[key][:steps] for key in ("ids", "top")}}
    return test._replace(case=case)


def report(number, name, kernels, fault, measured):
    """Prints a result; false if it is a failure."""
    if fault:
        print(f"not ok {number} - {name}\n# {fault}", flush=True)
    elif measured is None:
        print(f"ok {number} - {name} # SKIP this machine has no {kernels}", flush=True)
    else:
        print(f"ok {number} - {name}: {measured}", flush=True)
    return not fault


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ward", help="the ward binary")
    parser.add_argument("--filter", default="", help="only tests whose name holds this")
    parser.add_argument("--quick", action="store_true", help="one case of each GGUF file, for programs that check more;"
                        " of answers on an emulated card the beginning")
    parser.add_argument("--device", default="cpu", choices=("cpu", "emulated", "card"))
    options = parser.parse_args()
    device, why = options.device, why_no_card(options.ward, options.device)
    if why:
        print(f"1..0 # SKIP {why}")
        return
    first = QUICK_STEPS if options.quick and device == "emulated" else None
    tests = [shortened(test, first) for test in (*folder_tests(device), *gguf_tests(device, options.quick))
             if options.filter in test.name]
    sums = [] if options.filter or options.quick else list(CPU_SETS) if device == "cpu" else [CUDA]
    print(f"1..{len(tests) + len(sums)}")
    passed = len(tests) > 0
    checkpoints, ratios, absent = Checkpoints(), Ratios(), set()
    number = 0
    for name, group in itertools.groupby(tests, lambda test: test.checkpoint):
        path, missing = checkpoints.find(name)

        def judge(test):
            return (missing, None) if missing or test.kernels in absent else run_test(options.ward, path, test, device,
                                                                                      ratios)
        for test, (fault, measured) in zip(*each(judge, list(group), device)):
            number += 1
            if not fault and measured is None:
                absent.add(test.kernels)
            passed &= report(number, test.name, test.kernels, fault, measured)
    for number, kernels in enumerate(sums, len(tests) + 1):
        passed &= report(number, f"gguf/all/{kernels}", kernels, *ratios.judge(kernels))
    checkpoints.close()
    sys.exit(not passed)


if __name__ == "__main__":
    main()
