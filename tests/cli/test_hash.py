#!/usr/bin/env python3
"""ward hash and --model-hash as a user has them: test_hash.py WARD. Prints TAP; needs Python's standard library."""
import hashlib
import json
import os
import shutil
import sys
import time

from harness import (MODELS, answer, copy_of, equal, misused, refused, run, run_tests, scratch, succeeds, temporary,
                     test)

MODEL = os.path.join(MODELS, "hybrid")
QUESTION = "Describe this X-ray."
ENDINGS = (".json", ".jinja", ".model", ".safetensors")


def hash_of(lines):
    return hashlib.sha256("".join(f"{hashlib.sha256(open(path, 'rb').read()).hexdigest()}  {name}\n"
                                  for name, path in sorted(lines.items())).encode()).hexdigest()


def folder_hash(folder):
    return hash_of({name: os.path.join(folder, name) for name in os.listdir(folder)
                    if name.endswith(ENDINGS) and not name.startswith(".")})


def ward_hash(*args, **more):
    return succeeds("hash", *args, **more).split()[0]


def settle(folder):
    """Until the hashes of a folder that was just made may be remembered."""
    while time.time() - max(os.lstat(os.path.join(folder, name)).st_ctime for name in os.listdir(folder)) < 4:
        time.sleep(0.2)


@test
def a_folder_has_the_hash_of_its_list():
    model = copy_of(MODEL)
    expected = folder_hash(model)
    equal(ward_hash(model), expected, "hash")
    for name in ("README.md", ".config.json", "notes.txt"):
        temporary(os.path.join(model, name), b"beside the model")
    os.mkdir(os.path.join(model, "sub"))
    temporary(os.path.join(model, "sub", "a.json"), b"{}")
    equal(ward_hash(model), expected, "hash with files that do not count")
    temporary(os.path.join(model, "more.json"), b"{}")
    assert ward_hash(model) != expected
    equal(ward_hash(model), folder_hash(model), "hash with one more")
    equal(succeeds("hash", model), f"{folder_hash(model)}  {model}\n", "the line")


@test
def a_gguf_file_has_it_under_any_name():
    model = os.path.join(scratch, "gguf")
    os.mkdir(model)
    text, vision = os.path.join(model, "m.gguf"), os.path.join(model, "mmproj-m.gguf")
    succeeds("quantize", MODEL, text, "--type", "int8")
    both = hash_of({"model.gguf": text, "mmproj.gguf": vision})
    equal(ward_hash(text), both, "hash")
    equal(ward_hash(text, "--mmproj", "none"), hash_of({"model.gguf": text}), "hash of the text alone")
    os.rename(text, os.path.join(model, "other.gguf"))
    equal(ward_hash(model), both, "hash of a file by another name")


@test
def json_lists_the_files():
    told = json.loads(succeeds("hash", MODEL, "--json"))
    equal(told["sha256"], folder_hash(MODEL), "hash")
    equal([f["name"] for f in told["files"]], sorted(f["name"] for f in told["files"]), "order")
    for file in told["files"]:
        with open(os.path.join(MODEL, file["name"]), "rb") as content:
            equal(hashlib.sha256(content.read()).hexdigest(), file["sha256"], file["name"])
    equal(sum(f["bytes"] for f in told["files"]), told["bytes"], "bytes")


@test
def the_second_time_nothing_is_read():
    model = copy_of(MODEL)
    settle(model)
    equal(json.loads(succeeds("hash", model, "--json"))["remembered"], False, "the first time")
    equal(json.loads(succeeds("hash", model, "--json"))["remembered"], True, "the second time")
    config = os.path.join(model, "config.json")
    before = os.stat(config)
    with open(config, "r+b") as file:
        content = file.read()
        file.seek(0)
        file.write(content.replace(b"{", b" ", 1).replace(b" ", b"{", 1)) # the same bytes
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    equal(json.loads(succeeds("hash", model, "--json"))["remembered"], False, "after a write under the old mtime")


@test
def without_a_home_nothing_is_remembered_and_all_works():
    bare = {name: value for name, value in os.environ.items() if not name.startswith("XDG") and name != "HOME"}
    for more in ({}, {"HOME": "/proc/nowhere"}, {"HOME": "relative"}, {"XDG_CACHE_HOME": "", "XDG_STATE_HOME": "x"}):
        for _ in range(2):
            told = json.loads(succeeds("hash", MODEL, "--json", env={**bare, **more}))
            equal((told["sha256"], told["remembered"]), (folder_hash(MODEL), False), f"with {more}")


@test
def a_pin_that_fits_lets_the_model_run():
    expected = folder_hash(MODEL)
    for pin in (expected, f"sha256:{expected}", expected.upper()):
        told = answer("-m", MODEL, "--model-hash", pin, "-n", "2", QUESTION)
        equal(told["model"]["sha256"], expected, "model.sha256")
    succeeds("quantize", MODEL, os.path.join(scratch, "pinned.gguf"), "--model-hash", expected)
    measured = ("-n", "2", "-r", "1", "--warmups", "0", "-o", "json")
    told = json.loads(succeeds("bench", "-m", MODEL, "--model-hash", expected, *measured))
    equal(told["results"][0]["model"]["sha256"], expected, "model.sha256 of a benchmark")
    refused("bench", "-m", MODEL, "-m", MODEL, "--model-hash", expected, "--model-hash", "0" * 64, *measured, words="pinned")
    misused("bench", "-m", MODEL, "-m", MODEL, "--model-hash", expected, *measured)


@test
def the_report_has_the_hash_when_it_is_known():
    model = copy_of(MODEL)
    settle(model)
    equal(answer("-m", model, "-n", "2", QUESTION)["model"]["sha256"], None, "before anybody hashed it")
    expected = ward_hash(model)
    equal(answer("-m", model, "-n", "2", QUESTION)["model"]["sha256"], expected, "afterwards")


@test
def another_model_is_refused_before_it_is_opened():
    model = copy_of(MODEL)
    expected = ward_hash(model)
    weights = os.path.join(model, "model.safetensors")
    with open(weights, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    said = refused("run", "-m", model, "--model-hash", expected, "-i", "/nonexistent.png", QUESTION, words="pinned")
    assert expected in said and folder_hash(model) in said, said
    refused("quantize", model, os.path.join(scratch, "never.gguf"), "--model-hash", expected, words="pinned")
    assert not os.path.exists(os.path.join(scratch, "never.gguf"))
    shutil.copy(os.path.join(MODEL, "config.json"), os.path.join(model, "a.json"))
    refused("run", "-m", model, "--model-hash", folder_hash(MODEL), QUESTION, words="pinned")


@test
def wrong_usage():
    misused("hash", words="one model")
    misused("hash", MODEL, MODEL, words="one model")
    for pin in ("", "12", "sha256:", "g" * 64, "0" * 63, "0" * 65):
        misused("run", "-m", MODEL, "--model-hash", pin, QUESTION, words="--model-hash")
    refused("hash", "/nonexistent/model", words="/nonexistent/model")
    model = copy_of(MODEL)
    temporary(os.path.join(model, "a\nb.json"), b"{}")
    refused("hash", model, words="control character")
    os.rename(os.path.join(model, "a\nb.json"), os.path.join(model, "ab.json"))
    os.remove(os.path.join(model, "ab.json"))
    os.symlink("nothing", os.path.join(model, "ab.json"))
    refused("hash", model, words="ab.json")


@test
def a_full_or_read_only_cache_is_no_failure():
    folder = os.path.join(scratch, "closed")
    os.makedirs(folder)
    os.chmod(folder, 0o500)
    environment = {**os.environ, "XDG_CACHE_HOME": "/proc/1", "XDG_STATE_HOME": folder}
    equal(ward_hash(MODEL, env=environment), folder_hash(MODEL), "hash")
    equal(run("hash", MODEL, env=environment).stderr, b"", "what it said")


if __name__ == "__main__":
    sys.exit(run_tests())
