#!/usr/bin/env python3
"""ward doctor as a user runs it: test_doctor.py WARD. Prints TAP; needs Python's standard library and the small checkpoints of
tests/vectors/models."""
import json
import os
import sys
import tempfile

from harness import MODELS, equal, misused, refused, run, run_tests, scratch, succeeds, temporary, test

TYPES = ["bf16", "int8", "int4", "q4_0"]


def report(*arguments, status=0):
    done = run("doctor", "--json", *arguments)
    equal(done.returncode, status, f"exit status of {arguments} ({done.stderr!r})")
    return json.loads(done.stdout)


def types(found):
    return {entry["type"]: entry for entry in found["types"]}


def enough():
    """Whether this machine has the minimum: a small one that runs the tests need not."""
    return run("doctor", "--preset", "tiny", "--json").returncode == 0


@test
def this_machine_is_measured():
    done = run("doctor", "--json")
    found = json.loads(done.stdout)
    equal(done.returncode, 0 if found["verdict"]["will_do"] else 1, "exit status")
    equal([entry["type"] for entry in found["types"]], TYPES, "types")
    limits = found["limits"]
    assert limits["read_gbs"] > 0.1 and limits["multiply_gops"]["f32"] > 0.1, limits
    assert limits["read_mean_gbs"] <= limits["read_gbs"] * 1.001, limits
    assert found["machine"]["memory_bytes"] > 0 and found["machine"]["cpus_usable"] > 0, found["machine"]
    for entry in found["types"]:
        times = entry["predicted_ms"]
        assert abs(times["vision"] + times["prefill"] + times["decode"] - times["total"]) < 1, times
        assert abs(times["token"] * 199 - times["decode"]) < 2, times
    kinds = types(found)
    assert kinds["bf16"]["predicted_ms"]["decode"] > kinds["int8"]["predicted_ms"]["decode"] > \
        kinds["int4"]["predicted_ms"]["decode"], "fewer bytes are not read faster"
    equal(sorted(check["name"] for check in found["safety"]), ["audit log", "core dumps", "offline, enforced", "swap"], "safety")
    equal({check["name"]: check["verdict"] for check in found["safety"]}["offline, enforced"] == "ok",
          found["offline"]["enforced"], "the lock")


def log_check(folder):
    found = json.loads(run("doctor", "--preset", "tiny", "--json", env={**os.environ, "WARD_AUDIT": folder}).stdout)
    return {check["name"]: check for check in found["safety"]}["audit log"]


@test
def the_audit_log_is_looked_at():
    folder = os.path.join(scratch, "log")
    missing = log_check(folder)
    equal(missing["verdict"], "warning", "a log that is not there")
    assert folder in missing["found"], missing
    succeeds("audit", "init", "--log", folder, "--out", os.path.join(scratch, "auditor.key"), "--no-passphrase")
    equal(log_check(folder)["verdict"], "ok", "a log that is there")


@test
def sizes_are_those_of_the_files():
    """bf16: of the published files, without their headers; INT8 and INT4: of the tensors that ward quantize writes."""
    kinds = types(report("--device", "RTX 3090"))
    assert abs(kinds["bf16"]["disk_bytes"] - 8600158944) < 5e6, kinds["bf16"] # norms and biases are left out
    assert abs(kinds["int8"]["disk_bytes"] - 4.587e9) < 3e7, kinds["int8"]
    assert abs(kinds["int4"]["disk_bytes"] - 2.83e9) < 3e7, kinds["int4"]
    equal(kinds["bf16"]["kv_bytes"], 4096 * (5 * 2048 + 29 * 1535), "KV cache of 2,048 tokens")


@test
def devices_of_the_table():
    orin = report("--device", "jetson agx-orin")
    equal((orin["device"]["name"], orin["device"]["class"], orin["target_ms"]), ("Jetson AGX Orin", "edge", 5000), "device")
    assert orin["verdict"]["will_do"] and "machine" not in orin and "limits" not in orin, orin
    card = types(report("--device", "NVIDIA GeForce RTX 3090"))
    # no faster than 200 times the weights at the published bandwidth, nor four times slower
    for kind, least in (("bf16", 1650), ("int8", 870)):
        assert least < card[kind]["predicted_ms"]["total"] < 4 * least, card[kind]
    small = report("--device", "Jetson Orin Nano", status=1) # the page's minimum of RAM is 16 GB
    assert not types(small)["bf16"]["fits"] and types(small)["int4"]["fits"], small["types"]
    assert types(small)["bf16"]["missing_bytes"] > 1e9, small["types"]
    report("--device", "M1", "--memory", "8", status=1)
    report("--device", "M1 Pro", "--target-ms", "100", status=1)
    table = succeeds("doctor", "--device", "list")
    for name in ("RTX 5090", "RTX 4060", "Jetson Orin NX 16GB", "M4 Max"):
        assert name in table, table


def shares(name="shares.json", **more):
    """A file of shares of limits, as tools/card_report.py writes them."""
    return temporary(name, json.dumps({"shares": {"of": "A Card", **more}}).encode())


@test
def a_projection_from_shares():
    whole = shares(vision=1, prefill=1, read={"bf16": 1, "int8": 0.5})
    found = report("--device", "RTX 3090", "--shares", whole)
    equal(found["device"]["shares_of"], "A Card", "where they come from")
    card = types(found)
    # the published limits themselves: 7.76 GB of weights at 936 GB/s, 5.5 Tera-operations of an image at 71 TFLOP/s
    assert abs(card["bf16"]["predicted_ms"]["token"] - card["bf16"]["bytes_a_token"] / 936e6) < 0.01, card["bf16"]
    assert abs(card["int8"]["predicted_ms"]["token"] - 2 * card["int8"]["bytes_a_token"] / 936e6) < 0.02, card["int8"]
    assert abs(card["bf16"]["predicted_ms"]["vision"] - 5.5e3 / 71) < 3, card["bf16"]
    for kind in ("bf16", "int8"):
        times, in_time = card[kind]["predicted_ms"], card[kind]["tokens_in_time"]
        assert times["first_token"] + (in_time - 1) * times["token"] <= 2000 + in_time * 0.01, card[kind]
        assert times["first_token"] + in_time * times["token"] > 2000 - in_time * 0.01, card[kind]
    equal((card["q4_0"]["predicted_ms"], card["q4_0"]["tokens_in_time"]), (None, None), "what was not measured")
    assert b"A projection: the shares of its limits are those that ward reached on A Card" in \
        run("doctor", "--device", "RTX 3060", "--shares", whole).stdout
    misused("doctor", "--shares", whole, words="--device")
    for words, broken in (("vision", shares("vision.json", vision=-1)), ("bf16", shares("read.json", read={"bf16": "much"})), ("prefill", shares("prefill.json", prefill=2)),
                          ("shares", temporary("none.json", b"{}")), ("cannot be", os.path.join(scratch, "not-there"))):
        refused("doctor", "--device", "RTX 3090", "--shares", broken, words=words)


@test
def a_model_that_is_here():
    for name in ("hybrid", "text"):
        model = os.path.join(MODELS, name)
        found = report("-m", model, status=0 if enough() else 1)
        equal(found["model"]["name"], model, "name")
        equal(found["protocol"]["images"], 0 if name == "text" else 1, "images")
        assert types(found)["bf16"]["disk_bytes"] < 1e7, found["types"]
    out = os.path.join(tempfile.mkdtemp(dir=scratch), "m")
    succeeds("synth", "--preset", "tiny", out)
    equal(report("-m", out, status=0 if enough() else 1)["model"]["random_weights"], True, "the mark")


@test
def too_large_a_model_does_not_fit():
    shape = {"model_type": "gemma3_text", "hidden_size": 65536, "intermediate_size": 1 << 20, "num_hidden_layers": 512,
             "sliding_window": 1024}
    found = report("--preset", temporary("large.json", json.dumps(shape).encode()), status=1)
    assert not found["verdict"]["fits"] and all(entry["missing_bytes"] > 1e12 for entry in found["types"]), found["types"]


@test
def text_for_people():
    done = run("doctor", "--device", "RTX 3060")
    text = done.stdout.decode()
    equal(done.returncode, 0, "exit status")
    for words in ("RTX 3060", "the minimum", "bf16", "int4", "This machine will do", "has not been timed on such a card"):
        assert words in text, text
    slow = run("doctor", "--device", "Jetson AGX Orin", "--target-ms", "500")
    equal(slow.returncode, 1, "exit status")
    assert "will not do" in slow.stdout.decode(), slow.stdout


@test
def wrong_usage():
    misused("doctor", "x", words="no operands")
    misused("doctor", "--device", "RTX 9999", words="RTX 3090")
    misused("doctor", "--device", "", words="RTX 3090")
    misused("doctor", "--memory", "8", words="--device")
    misused("doctor", "-m", "a", "--preset", "tiny", words="both")
    misused("doctor", "--target-ms", "0", words="--target-ms")
    refused("doctor", "-m", os.path.join(scratch, "nothing"), words="nothing")
    refused("doctor", "--preset", temporary("broken.json", b"{"), words="broken.json")
    assert "Examples:" in succeeds("doctor", "--help")


if __name__ == "__main__":
    sys.exit(run_tests())
