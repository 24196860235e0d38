#!/usr/bin/env python3
"""ward bench as a user runs it: test_bench.py WARD [--quick]. Prints TAP; needs Python's standard library and the demo
checkpoint. With the module jsonschema results are also validated by it."""
import copy
import csv
import glob
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from harness import (MODELS, PHANTOM, ROOT, WARD, Skip, equal, misused, png, refused, run, run_tests, scratch, succeeds,
                     temporary, test)

QUICK = "--quick" in sys.argv
NAME = "Doe_John_1970.png" # what must not be found in any output
SCHEMA = os.path.join(ROOT, "docs", "bench.schema.json")
SLOW = os.path.join(os.path.dirname(WARD), "tests", "ward-slow-encoder")
TEXT_ONLY = os.path.join(MODELS, "text")
IMAGE = None
SMALL = ["-r", "2", "--warmups", "1", "-n", "8"]
saved = {}


def bench(*args, **more):
    return succeeds("bench", "-m", PHANTOM, *args, **more)


def result(*args):
    """A document of a small run; the same arguments give the same one."""
    if args not in saved:
        saved[args] = json.loads(bench("-i", IMAGE, "-o", "json", *args))
    return copy.deepcopy(saved[args])


def keep(document, name):
    return temporary(name, json.dumps(document).encode())


def prepare():
    global IMAGE
    IMAGE = temporary(NAME, png(80, 64, lambda x, y: (x * y) % 256))


# ---- the schema ------------------------------------------------------------------------------------------------------

def faults(value, schema, root, where="$"):
    """What JSON Schema would say of those of its words that docs/bench.schema.json uses."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float),
             "integer": int}
    if "$ref" in schema:
        target = root
        for part in schema["$ref"][2:].split("/"):
            target = target[part]
        yield from faults(value, target, root, where)
    if "anyOf" in schema and not any(not list(faults(value, one, root, where)) for one in schema["anyOf"]):
        yield f"{where}: fits none of anyOf"
    if "const" in schema and value != schema["const"]:
        yield f"{where}: is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: is not one of {schema['enum']}"
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(isinstance(value, kinds[t]) and not (t in ("number", "integer") and isinstance(value, bool)) for t in types):
            yield f"{where}: {value!r} is no {types}"
            return
    if "minimum" in schema and isinstance(value, (int, float)) and value < schema["minimum"]:
        yield f"{where}: {value} is too small"
    if "maximum" in schema and isinstance(value, (int, float)) and value > schema["maximum"]:
        yield f"{where}: {value} is too large"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{where}: {value!r} does not match"
    if isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                yield f"{where}: lacks {name}"
        more = schema.get("additionalProperties", True)
        for name, member in value.items():
            if name in schema.get("properties", {}):
                yield from faults(member, schema["properties"][name], root, f"{where}.{name}")
            elif more is False:
                yield f"{where}: has {name}, which is not described"
            elif isinstance(more, dict):
                yield from faults(member, more, root, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield from faults(item, schema["items"], root, f"{where}[{i}]")


def check_schema(document):
    with open(SCHEMA, encoding="utf-8") as file:
        schema = json.load(file)
    equal(list(faults(document, schema, schema)), [], "faults by the schema")


@test
def results_fit_the_schema():
    for document in (result(*SMALL), json.loads(bench("-p", "64", "-n", "0", "-r", "1", "-o", "json")),
                     result(*SMALL, "--no-cold", "--draft-max", "auto", "--fixed")):
        check_schema(document)
    for path in glob.glob(os.path.join(ROOT, "docs", "benchmarks", "*.json")):
        with open(path, encoding="utf-8") as file:
            check_schema(json.load(file))
    broken = result(*SMALL)
    broken["results"][0]["latency_ms"]["mean"] = "fast"
    broken["results"][0]["surprise"] = 1
    del broken["protocol"]["runs"]
    with open(SCHEMA, encoding="utf-8") as file:
        schema = json.load(file)
    equal(len(list(faults(broken, schema, schema))), 3, "faults found in a broken document")


@test
def results_fit_the_schema_by_jsonschema():
    try:
        import jsonschema
    except ImportError:
        raise Skip("the module jsonschema is not installed")
    with open(SCHEMA, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(result(*SMALL))


# ---- figures -----------------------------------------------------------------------------------------------------------

def percentile(values, percent):
    values = sorted(values)
    at = percent / 100 * (len(values) - 1)
    low = int(at)
    return values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])


@test
def figures_follow_from_the_runs():
    r = result("-r", "6", "--warmups", "1", "-n", "12", "--fixed")["results"][0]
    runs = r["latency_ms"]["runs"]
    equal(len(runs), 6, "runs")
    mean = sum(runs) / 6
    for name, expected in {"mean": mean, "std": (sum((x - mean) ** 2 for x in runs) / 6) ** 0.5, "min": min(runs),
                           "max": max(runs), "p50": percentile(runs, 50), "p95": percentile(runs, 95)}.items():
        assert abs(r["latency_ms"][name] - expected) < 0.002, f"{name}: {r['latency_ms'][name]}, expected {expected}"
    equal(r["latency_ms"]["p99"], None, "p99 of six runs")
    equal(r["tokens"]["runs"], [12] * 6, "tokens of fixed runs")
    equal(r["stages"]["token"]["n"], 6 * 11, "further tokens")
    stages = [r["stages"][s]["runs"] for s in ("image", "vision", "prefill", "first_token", "decode")]
    # the median: a busy machine may take the processor between two stages
    shares = [sum(parts) / whole for *parts, whole in zip(*stages, runs)]
    assert abs(percentile(shares, 50) - 1) <= 0.02, f"the stages' shares of the whole: {shares}"
    assert abs(r["stages"]["sum_share"] - sum(map(sum, stages)) / sum(runs)) < 0.001, r["stages"]["sum_share"]
    for first, vision, whole in zip(r["ttft_ms"]["runs"], stages[1], runs):
        assert vision < first < whole, f"vision {vision}, first token {first}, whole {whole}"
    decode = 1000 * 6 * 11 / sum(stages[4])
    assert abs(r["throughput"]["decode_tps"] - decode) < 0.01 * decode, "decode_tps"
    equal(r["tokens"]["drafted"], 0, "drafted by default")


@test
def the_clock_and_the_kernel_agree():
    tool = shutil.which("time", path="/usr/bin:/bin")
    if not tool:
        raise Skip("GNU time is not installed")
    done = subprocess.run([tool, "-f", "%e %M", WARD, "bench", "-m", PHANTOM, "-i", IMAGE, "--fixed", "-n", "60", "-r", "8",
                           "-o", "json"], capture_output=True, timeout=120, check=True)
    wall, peak = map(float, done.stderr.split()[-2:])
    r = json.loads(done.stdout)["results"][0]
    inside = sum(r["latency_ms"]["runs"]) / 1e3
    assert inside < wall, f"{inside} s of runs in {wall} s"
    # GNU time sees all of the process, the documents it makes afterwards too
    assert r["memory"]["peak"] <= peak * 1024 * 1.001, f"peak {r['memory']['peak']}, GNU time {peak * 1024}"
    assert r["memory"]["peak"] >= peak * 1024 * 0.8, f"peak {r['memory']['peak']}, GNU time {peak * 1024}"
    for phase in ("load_peak", "steady", "with_image"):
        p = r["memory"][phase]
        assert 0 < p["resident"] <= r["memory"]["peak"] * 1.02, f"{phase}: {p}"
        equal(p["anonymous"] + p["mapped"] + p["shared"], p["resident"], phase)
    assert r["memory"]["sampler"]["share"] < 0.05, r["memory"]["sampler"]


@test
def caches_are_off_unless_asked_for():
    def vision(*more):
        return result("-r", "3", "--warmups", "1", "-n", "2", *more)["results"][0]["stages"]["vision"]["runs"]
    assert min(vision()) > 0, vision()
    equal(vision("--keep-caches"), [0, 0, 0], "the encoder with caches")


@test
def a_cold_start_is_one_or_says_why_not():
    r = result(*SMALL)["results"][0]
    opened = r["stages"]["open"]
    assert opened["cold_ms"] > 0 and opened["cold_first_token_ms"] > opened["cold_ms"], opened
    if opened["cold_resident"] is None or opened["cold_resident"] > 0.01:
        assert any("cold start" in warning for warning in r["warnings"]), r["warnings"]
    equal(len(opened["warm_ms"]["runs"]), 3, "warm opens")
    equal(result(*SMALL, "--no-cold")["results"][0]["stages"]["open"]["cold_ms"], None, "cold_ms with --no-cold")


@test
def a_target_passes_or_fails():
    for ms, passes in (("1e9", True), ("0.001", False)):
        r = result(*SMALL, "--target-ms", ms)["results"][0]
        equal(r["target"]["pass"], passes, f"pass at {ms}")
        equal(r["rows"][0]["pass"], passes, f"row at {ms}")
    equal(result(*SMALL)["results"][0]["target"]["ms"], 5000, "the default target of a CPU")
    for phase in r["rows"][1:4]:
        equal(phase["pass"], True, phase["name"])


@test
def stages_are_shares_of_limits():
    document = result(*SMALL, "--limits", "-t", "1", "--fixed")
    check_schema(document)
    limits = document["results"][0]["limits"]
    equal(limits["measured"]["threads"], 1, "threads")
    for stage in ("vision", "prefill", "decode"):
        assert 0 < limits[f"{stage}_share"] < 40, limits # of a model that fits the cache; no machine is named
    equal(result(*SMALL)["results"][0]["limits"], None, "limits where they are not asked for")


@test
def random_weights_are_called_so():
    model = os.path.join(scratch, "random")
    succeeds("synth", "--preset", "tiny", model)
    text = succeeds("bench", "-m", model, "-r", "1", "--warmups", "0", "-n", "2", "-o", "json")
    equal(json.loads(text)["results"][0]["model"]["random_weights"], True, "random_weights")
    path, page = temporary("random.json", text.encode()), os.path.join(scratch, "random.html")
    for form in ("table", "md"):
        equal(succeeds("bench", "--from", path, "-o", form, "--report", page).lower().count("random weights"), 2, form)
    with open(page, encoding="utf-8") as file:
        assert "random weights" in file.read(), "the report does not say so"
    assert "true" in succeeds("bench", "--from", path, "-o", "csv").splitlines()[1].split(",")[6], "CSV does not say so"


# ---- sweeps ------------------------------------------------------------------------------------------------------------

@test
def lists_are_swept():
    document = json.loads(bench("-p", "40,80", "-p", "64", "-n", "0,3", "-t", "1-2", "-r", "1", "--warmups", "0", "--no-cold",
                                "-o", "json"))
    tests = [(r["threads"], r["test"]["prompt_tokens_asked"], r["test"]["max_tokens"]) for r in document["results"]]
    equal(tests, [(t, p, n) for t in (1, 2) for p in (40, 80, 64) for n in (0, 3)], "tests")
    for r in document["results"]:
        assert 0 <= r["test"]["prompt_tokens_asked"] - r["test"]["prompt_tokens"] < 12, r["test"]
        equal(r["test"]["image"], False, "image")
        equal(r["tokens"]["max"], max(1, r["test"]["max_tokens"]), "tokens")
        equal(r["throughput"]["decode_tps"] is None, r["test"]["max_tokens"] == 0, "no speed of decoding without decoding")
    lines = bench("-p", "40,80", "-n", "0", "-r", "1", "-o", "jsonl").splitlines()
    equal(len(lines), 2, "lines")
    for line in lines:
        one = json.loads(line)
        equal(len(one["results"]), 1, "results in a line")
        check_schema(one)
    two = json.loads(succeeds("bench", "-m", PHANTOM, "-m", TEXT_ONLY, "-r", "1", "-n", "2", "-o", "json"))
    equal([r["test"]["image"] for r in two["results"]], [True, False], "who sees")


# ---- outputs -----------------------------------------------------------------------------------------------------------

@test
def every_output_says_the_same():
    path = keep(result(*SMALL), "a.json")
    document = result(*SMALL)
    equal(json.loads(succeeds("bench", "--from", path, "-o", "json")), document, "JSON from JSON")
    mean = document["results"][0]["latency_ms"]["mean"]
    rows = list(csv.DictReader(io.StringIO(succeeds("bench", "--from", path, "-o", "csv"))))
    equal(len(rows), 1, "rows")
    equal(float(rows[0]["latency_ms_mean"]), mean, "mean in CSV")
    shown = f"{mean:.{0 if mean >= 100 else 1 if mean >= 10 else 2}f} ±"
    for form in ("table", "md"):
        text = succeeds("bench", "--from", path, "-o", form)
        assert shown in text and "PASS" in text, f"{form} lacks {shown!r}:\n{text}"
    equal(json.loads(succeeds("bench", "--from", path, "-o", "jsonl")), document, "JSONL of one result")


@test
def the_report_needs_nothing_beside_it():
    path, page = keep(result(*SMALL), "a.json"), os.path.join(scratch, "report.html")
    succeeds("bench", "--from", path, "--report", page)
    with open(page, encoding="utf-8") as file:
        text = file.read()
    for word in ("<script", "http:", "https:", "src=", "@import", "url("):
        assert word not in text, f"the report holds {word}"
    equal(text.count("<figure>"), text.count("</figure>"), "figures")
    equal(text.count("<svg"), 4, "plots")
    hostile = result(*SMALL)
    hostile["results"][0]["model"]["name"] = "<script>alert(1)</script>"
    hostile["environment"]["cpu"] = "\"><img src=x>\x1b[31m"
    hostile["results"][0]["latency_ms"]["runs"] = ["x", None, 1e308, -5]
    hostile["results"][0]["decode_curve"] = [{}, 3, {"context": -1, "tps": 1e300}]
    hostile["results"][0]["memory"]["series"]["ms"] = [5, 1]
    path = keep(hostile, "hostile.json")
    succeeds("bench", "--from", path, "--report", page, "-o", "md")
    with open(page, encoding="utf-8") as file:
        text = file.read()
    assert "<script" not in text and "<img" not in text and "\x1b" not in text, "markup came through"


@test
def no_input_is_named():
    path, page = os.path.join(scratch, "named.json"), os.path.join(scratch, "named.html")
    with open(path, "wb") as file:
        equal(run("bench", "-m", PHANTOM, "-i", IMAGE, *SMALL, "-o", "json", "--report", page, "Is this John Doe's film?",
                  stdout=file).returncode, 0, "status")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(page, encoding="utf-8") as file:
        text += file.read()
    for form in ("table", "md", "csv", "jsonl"):
        text += succeeds("bench", "--from", path, "-o", form)
    for word in (NAME, "Doe", scratch, os.path.dirname(PHANTOM), os.uname().nodename + "\""):
        assert word not in text, f"an output holds {word}"
    with open(IMAGE, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert digest in text, "the image is not named by its hash"
    assert hashlib.sha256(b"Is this John Doe's film?").hexdigest() in text, "the question is not named by its hash"


# ---- comparing ---------------------------------------------------------------------------------------------------------

def compared(a, b):
    """{figure: verdict}"""
    text = succeeds("bench", "--compare", a, b, "-o", "md")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[5] for row in rows if row[0] != "figure" and not set(row[0]) <= set("-:")}


STAGES = ("image", "vision", "prefill", "first_token", "decode")


def noisy(document, seed, noise=0.015, slower=None):
    """The same with runs that scatter as a quiet machine's do; `slower`: by how much the encoder is."""
    chance, document = random.Random(seed), copy.deepcopy(document)
    r = document["results"][0]
    means = {"image": 40, "vision": 600, "prefill": 250, "first_token": 2, "decode": 900}
    whole = [0] * 10
    for stage in STAGES:
        mean = means[stage] * (1 + slower if slower and stage == "vision" else 1)
        runs = [mean * (1 + abs(chance.gauss(0, noise))) for _ in range(10)]
        whole = [a + b for a, b in zip(whole, runs)]
        r["stages"][stage]["runs"], r["stages"][stage]["p50"] = runs, percentile(runs, 50)
    r["latency_ms"]["runs"], r["latency_ms"]["p50"] = whole, percentile(whole, 50)
    r["machine"]["others_busy"] = 0.01
    r["ttft_ms"] = None
    return document


@test
def noise_is_no_difference_and_a_slow_encoder_is_one():
    base = result(*SMALL)
    for seed in range(10 if QUICK else 40):
        a = keep(noisy(base, 2 * seed), "a.json")
        b = keep(noisy(base, 2 * seed + 1), "b.json")
        for figure, verdict in compared(a, b).items():
            assert verdict in ("no difference", "too few runs"), f"seed {seed}: {figure} is called {verdict}"
        slow = compared(a, keep(noisy(base, 2 * seed + 1, slower=0.06), "b.json"))
        equal(slow["vision, ms"], "slower", f"seed {seed}: an encoder slower by 6 %")
        equal(slow["prefill, ms"], "no difference", "prefill")
        busy = noisy(base, 2 * seed + 1, slower=0.06)
        busy["results"][0]["machine"]["others_busy"] = 0.3
        equal(compared(a, keep(busy, "busy.json"))["vision, ms"], "unsure: busy", "on a busy machine")
        back = compared(os.path.join(scratch, "b.json"), a)
        equal(back["vision, ms"], "faster", "the other way round")


@test
def a_build_that_sleeps_in_the_encoder_is_seen():
    if not os.path.exists(SLOW):
        raise Skip("the slowed build is not there")
    args = ["bench", "-m", PHANTOM, "-i", IMAGE, "--fixed", "-n", "4", "-r", "12", "--warmups", "1", "-o", "json"]
    def measure(ms, name):
        done = subprocess.run([SLOW, *args], capture_output=True, timeout=120, check=True,
                              env={**os.environ, "WARD_TEST_SLEEP_MS": str(ms)})
        return temporary(name, done.stdout)
    plain = measure(0, "plain.json")
    with open(plain, encoding="utf-8") as file:
        r = json.load(file)["results"][0]["stages"]["vision"]
    # beyond any scatter, so that a busy machine sees it too
    verdicts = compared(plain, measure(50 + 6 * r["max"], "slow.json"))
    equal(verdicts["vision, ms"], "slower", "vision")
    equal(verdicts["whole answer, ms"], "slower", "whole answer")
    equal(set(compared(plain, plain).values()) - {"no difference", "too few runs"}, set(), "a result against itself")


@test
def ten_pairs_of_the_same_build_do_not_differ():
    if not os.environ.get("WARD_IDLE_MACHINE"):
        raise Skip("a shared machine's speed changes between two runs; WARD_IDLE_MACHINE=1 says that this one is idle")
    # In less than a second what others use cannot be told: 100 runs take two.
    args = ("-i", IMAGE, "--fixed", "-n", "16", "-r", "100", "--warmups", "1", "--no-cold", "-o", "json")
    quiet = 0
    for i in range(10):
        texts = [bench(*args) for _ in range(2)]
        busy = [json.loads(text)["results"][0]["machine"]["others_busy"] for text in texts]
        if any(share is None or share > 0.05 for share in busy):
            continue
        quiet += 1
        verdicts = compared(*(temporary(f"{i}-{k}.json", text.encode()) for k, text in enumerate(texts)))
        different = {figure: verdict for figure, verdict in verdicts.items() if verdict in ("slower", "faster", "more", "less")}
        equal(different, {}, f"pair {i}")
    if not quiet:
        raise Skip("other programs are using this machine")
    print(f"# {quiet} pairs")


@test
def too_few_runs_are_not_compared():
    a = keep(result("-r", "3", "--warmups", "1", "-n", "2"), "a.json")
    equal(set(v for k, v in compared(a, a).items() if "memory" not in k), {"too few runs"}, "verdicts")
    text = keep(json.loads(bench("-p", "40", "-n", "0", "-r", "1", "-o", "json")), "text.json")
    refused("bench", "--compare", a, text, words="no test in common")


@test
def local_and_cloud_are_compared():
    tool = os.path.join(ROOT, "tools", "local_or_cloud.py")
    document = result(*SMALL)
    document["results"][0]["latency_ms"]["mean"] = 36000
    done = subprocess.run([tool, keep(document, "a.json"), "--answers-a-day", "100", "--upload-mbits", "1", "--image-mb", "1",
                           "--round-trip-ms", "0", "--cloud-answer-ms", "1000", "--machine-price", "3650", "--machine-years", "1",
                           "--watts", "100", "--kwh-price", "1", "--cloud-price", "0.5"], capture_output=True, text=True, check=True)
    # 8 s upload and 1 s; 36 s at 100 W are a thousandth of a kilowatt-hour; 10 a day for the machine
    for words in ("| 36.0 s | 9.0 s: 8.0 s upload", "| 1.0 h of the machine |", "| 0.1010 | 0.5000 |", "| 20 answers a day |"):
        assert words in done.stdout, f"{words} is not in {done.stdout}"
    done = subprocess.run([tool, SCHEMA], capture_output=True, text=True, check=False)
    equal(done.returncode, 1, "status for what is no result")
    assert "no result of ward bench" in done.stderr, done.stderr


# ---- what can go wrong -------------------------------------------------------------------------------------------------

@test
def bad_input_is_refused():
    refused("bench", "-m", os.path.join(scratch, "nothing"), words="no such folder")
    refused("bench", "-m", PHANTOM, "-i", SCHEMA, words="is not an image")
    refused("bench", "-m", PHANTOM, "-i", os.path.join(scratch, "none.png"), words="cannot be opened")
    refused("bench", "-m", TEXT_ONLY, "-i", IMAGE, words="has no image encoder")
    refused("bench", "-m", PHANTOM, "-p", "40", "-i", "none", "--ctx", "16", words="16")
    refused("bench", "--from", SCHEMA, words="is no result of ward bench")
    refused("bench", "--from", temporary("v.json", b'{"format": "ward-bench", "version": 99}'), words="version")
    refused("bench", "--from", temporary("empty.json", b"{}"), words="is no result")
    refused("bench", "--from", temporary("half.json", b'{"format": "ward-ben'), words="half.json")
    succeeds("bench", "--from", temporary("bare.json", b'{"format": "ward-bench", "version": 1}'),
             "--report", os.path.join(scratch, "bare.html"))
    misused("bench", words="which model")
    for value in ("0", "-5", "nan", "fast"):
        misused("bench", "-m", PHANTOM, "--target-ms", value, words="--target-ms")
    misused("bench", "-m", PHANTOM, "-r", "0", words="--runs")
    misused("bench", "-m", PHANTOM, "-n", "1,x", words="--max-tokens")
    misused("bench", "-m", PHANTOM, "-t", "4-2", words="--threads")
    misused("bench", "-m", PHANTOM, "-p", "0-8*2", words="multiplied")
    misused("bench", "-m", PHANTOM, "-p", "8", "Why?", words="PROMPT")
    misused("bench", "--compare", "a.json", words="two saved results")
    misused("bench", "-m", PHANTOM, "-o", "xml", words="--output")


@test
def a_disk_that_is_full_or_read_only_is_said():
    refused("bench", "-m", PHANTOM, "--report", os.path.join(scratch, "no", "such", "r.html"), words="r.html")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            done = run("bench", "-m", PHANTOM, "-i", IMAGE, *SMALL, "-o", "json", stdout=full)
        equal(done.returncode, 1, "status")
        assert b"standard output: cannot be written" in done.stderr, done.stderr
        done = run("bench", "-m", PHANTOM, "-i", IMAGE, *SMALL, "--report", "/dev/full")
        equal(done.returncode, 1, "status of a report to a full disk")
        assert b"/dev/full" in done.stderr, done.stderr


@test
def interrupted_results_are_kept():
    page = os.path.join(scratch, "half.html")
    process = subprocess.Popen([WARD, "bench", "-m", PHANTOM, "-i", IMAGE, "--fixed", "-n", "100", "-r", "100000", "--warmups", "1",
                                "-o", "json", "--report", page], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(4 if QUICK else 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    equal(process.returncode, 130, f"status ({err!r})")
    document = json.loads(out)
    check_schema(document)
    equal(document["complete"], False, "complete")
    equal(document["results"][0]["complete"], False, "complete of the result")
    runs = document["results"][0]["latency_ms"]["runs"]
    assert 0 < len(runs) < 100000, f"{len(runs)} runs"
    path = keep(document, "half.json")
    for form in ("table", "md"):
        assert "interrupted" in succeeds("bench", "--from", path, "-o", form), f"{form} does not say so"
    with open(page, encoding="utf-8") as file:
        assert "interrupted" in file.read(), "the report does not say so"
    equal([name for name in os.listdir(scratch) if name.startswith("half.html") and name != "half.html"], [], "left behind")


prepare()
sys.exit(run_tests())
