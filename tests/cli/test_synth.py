#!/usr/bin/env python3
"""ward synth as a user runs it: test_synth.py WARD. Prints TAP; needs Python's standard library."""
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

from harness import (WARD, Skip, answer, equal, misused, png, refused, run, run_tests, scratch, succeeds, temporary, test)

QUESTION = "Describe this X-ray."
RANDOM = "random weights"
SMALL = {"model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "sliding_window": 16,
         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 400, "eos_token_id": [1, 6]}


def folder():
    return tempfile.mkdtemp(dir=scratch)


def synth(*arguments, preset="tiny"):
    out = os.path.join(folder(), "m")
    return out, json.loads(succeeds("synth", "--preset", preset, out, "--json", *arguments))


def contents(path):
    files = {}
    for name in sorted(os.listdir(path)):
        with open(os.path.join(path, name), "rb") as file:
            files[name] = file.read()
    return files


def config(**changes):
    """A file of SMALL with changes; None leaves a key out."""
    values = {key: value for key, value in {**SMALL, **changes}.items() if value is not None}
    return temporary(f"config-{len(os.listdir(scratch))}.json", json.dumps(values).encode())


# ---- what comes out -------------------------------------------------------------------------------------------------

@test
def the_same_seed_gives_the_same_bytes():
    one, report = synth("-t", "1", "--seed", "7")
    other, _ = synth("-t", "3", "--seed", "7")
    equal(contents(one), contents(other), "one thread and three")
    another, _ = synth("--seed", "8")
    assert contents(one)["model.safetensors"] != contents(another)["model.safetensors"], "seeds make no difference"
    equal(report["bytes"], os.path.getsize(os.path.join(one, "model.safetensors")), "bytes")
    equal((report["random_weights"], report["seed"], report["weights"]), (True, 7, 1079168), "report")


@test
def what_is_made_runs_and_says_what_it_is():
    out, _ = synth()
    film = temporary("film.png", png(60, 40, lambda x, y: (x * y) % 256))
    done = run("run", "-m", out, "-i", film, "-n", "4", "--ignore-eos", "--json", QUESTION)
    equal(done.returncode, 0, "exit status")
    assert RANDOM in done.stderr.decode(), done.stderr
    result = json.loads(done.stdout)
    equal(result["model"]["random_weights"], True, "JSON")
    equal((len(result["ids"]), result["timings"]["drafted_tokens"]), (4, 0), "tokens, and of them guessed")
    equal(json.loads(succeeds("tokenize", "-m", out, "--json", "<bos>a b\n\n\u00e9")), [2, 165, 324, 166, 8, 263, 237], "tokens")


@test
def the_mark_outlives_quantizing():
    out, _ = synth()
    named = os.path.join(folder(), "medgemma-4b-it") # a name alone makes no MedGemma of it
    os.rename(out, named)
    first, second = os.path.join(folder(), "first.gguf"), os.path.join(folder(), "second.gguf")
    succeeds("quantize", named, first, "--type", "int8")
    succeeds("quantize", first, second, "--type", "q4_0", "--allow-requantize")
    for model in (named, first, second):
        done = run("run", "-m", model, "-n", "2", "--json", QUESTION)
        assert RANDOM in done.stderr.decode() and "clinical" not in done.stderr.decode(), done.stderr
        facts = json.loads(done.stdout)["model"]
        equal((facts.get("random_weights"), facts.get("not_for_clinical_use")), (True, None), f"model of {model}")


@test
def a_file_gives_the_shape():
    out, report = synth(preset=config())
    with open(os.path.join(out, "config.json")) as file:
        equal(json.load(file), {"random_weights": True, **SMALL}, "config.json")
    equal([name for name in os.listdir(out) if name.startswith("pre")], [], "files for images")
    layer = 64 * (64 + 32 + 32 + 64) + 2 * 32 + 3 * 64 * 96 + 4 * 64
    equal(report["weights"], 400 * 64 + 2 * layer + 64, "weights")
    answer("-m", out, "-n", "2", QUESTION)
    again, _ = synth(preset=os.path.join(out, "config.json"))
    equal(contents(again)["config.json"], contents(out)["config.json"], "config.json of a copy")
    untied, report = synth(preset=config(tie_word_embeddings=False))
    equal(report["weights"], 2 * 400 * 64 + 2 * layer + 64, "weights with a head")
    answer("-m", untied, "-n", "2", QUESTION)


@test
def a_tokenizer_may_be_given():
    source, _ = synth()
    for given in (source, os.path.join(source, "tokenizer.json")):
        out, _ = synth("--tokenizer", given)
        equal(contents(out)["tokenizer.json"], contents(source)["tokenizer.json"], f"tokenizer of {given}")
    out = os.path.join(folder(), "m")
    refused("synth", "--preset", config(), out, "--tokenizer", source, words="512 tokens, more than the 400")
    refused("synth", "--preset", "tiny", out, "--tokenizer", temporary("tokenizer.json", b"{}"), words="tokenizer.json")
    refused("synth", "--preset", "tiny", out, "--tokenizer", folder(), words="neither")
    refused("synth", "--preset", "tiny", out, "--tokenizer", os.path.join(scratch, "nothing"), words="No such file")
    equal(os.listdir(os.path.dirname(out)), [], "what was left")


@test
def a_big_one_needs_room():
    name = "model-00001-of-00012.safetensors"
    out = os.path.join(folder(), "m")
    done = run("synth", "--preset", "medgemma-27b", out, preexec_fn=lambda: limit_files(1 << 20))
    equal(done.returncode, 1, "exit status")
    assert name in done.stderr.decode() or "GB" in done.stderr.decode(), done.stderr
    equal(os.listdir(os.path.dirname(out)), [], "what was left")


# ---- what does not --------------------------------------------------------------------------------------------------

@test
def wrong_usage():
    misused("synth", words="--preset")
    misused("synth", "--preset", "tiny", words="one folder")
    misused("synth", "--preset", "tiny", "a", "b", words="one folder")
    misused("synth", "--preset", "medgemma-5b", "a", words="medgemma-4b")
    misused("synth", "--preset", "tiny", "a", "--seed", "-1", words="--seed")
    misused("synth", "--preset", "tiny", "a", "--sed", "1", words="did you mean --seed")
    assert "Examples:" in succeeds("synth", "--help")


@test
def absurd_shapes_are_refused():
    out = os.path.join(folder(), "m")
    cases = [(temporary("a.json", b"[]"), "config.json"), (temporary("b.json", b"{}"), "config.json"),
             (temporary("c.json", b"{\"model_type\""), "c.json"), (temporary("d.json", b""), "d.json"),
             (temporary("e.json", os.urandom(4096)), "e.json"), (folder(), "not a regular file"),
             (config(hidden_size=None), "hidden_size"), (config(hidden_size=-5), "hidden_size"),
             (config(num_hidden_layers=1000000), "num_hidden_layers"), (config(model_type="llama"), "model_type"),
             (config(vocab_size=40), "too small"), (config(random_weights=False), "random_weights"),
             (config(hidden_size=65536, intermediate_size=1 << 20, num_hidden_layers=512), "GB"),
             (config(vocab_size=1 << 23, num_hidden_layers=1), "at most")]
    for path, words in cases:
        refused("synth", "--preset", path, out, words=words)
    equal(os.listdir(os.path.dirname(out)), [], "what was left")


@test
def only_its_own_is_replaced():
    out, _ = synth("--seed", "1")
    place = os.path.dirname(out)
    before = contents(out)
    refused("synth", "--preset", "tiny", out, words="--force")
    succeeds("synth", "--preset", "tiny", out + "/", "--force", "--seed", "2")
    assert contents(out) != before, "it was not replaced"
    equal(os.listdir(place), ["m"], "what is there")
    before = contents(out)
    temporary(os.path.join(out, "thesis.txt"), b"ten years")
    refused("synth", "--preset", "tiny", out, "--force", words="thesis.txt")
    os.remove(os.path.join(out, "thesis.txt"))
    with open(os.path.join(out, "config.json"), "w") as file:
        json.dump(SMALL, file) # a checkpoint that somebody trained
    refused("synth", "--preset", "tiny", out, "--force", words="not marked as random")
    equal(contents(out)["model.safetensors"], before["model.safetensors"], "what was there")
    link, plain = os.path.join(place, "link"), os.path.join(place, "file")
    os.symlink(out, link)
    temporary(plain, b"kept")
    for path in (link, plain):
        refused("synth", "--preset", "tiny", path, "--force", words="no folder")
    refused("synth", "--preset", "tiny", os.path.join(place, "no", "m"), words="No such file")
    refused("synth", "--preset", "tiny", "", words="empty")
    equal(sorted(os.listdir(place)), ["file", "link", "m"], "what is there")
    empty = folder()
    succeeds("synth", "--preset", "tiny", empty, "--force")


def limit_files(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@test
def a_failing_disk_leaves_nothing():
    out = os.path.join(folder(), "m")
    for size in (100, 20000, 1000000):
        refused("synth", "--preset", "tiny", out, words="File too large", preexec_fn=lambda: limit_files(size))
        equal(os.listdir(os.path.dirname(out)), [], "what was left")


@test
def a_full_or_read_only_disk_is_named():
    place = folder()
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place],
                                                   stderr=subprocess.DEVNULL).returncode == 0
    if not mounted:
        raise Skip("no file system can be mounted")
    try:
        words = refused("synth", "--preset", "tiny", os.path.join(place, "m"), words="are missing")
        assert "has 0.00 GB free" in words, words
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        refused("synth", "--preset", "tiny", os.path.join(place, "m"), words="Read-only")
        equal(os.listdir(place), [], "what was left")
    finally:
        subprocess.run(["umount", place], check=True)


@test
def interrupted_work_leaves_nothing():
    shape = config(hidden_size=2048, intermediate_size=8192, num_hidden_layers=4) # 0.4 GB
    for number in (signal.SIGINT, signal.SIGTERM):
        place = folder()
        process = subprocess.Popen([WARD, "synth", "--preset", shape, os.path.join(place, "m"), "-t", "1"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline:
            left = [name for parent, _, names in os.walk(place) for name in names]
            if any(name.startswith("model.safetensors") for name in left):
                break
        process.send_signal(number)
        equal(process.wait(60), 130, f"exit status after signal {number}")
        equal(os.listdir(place), [], "what was left")


if __name__ == "__main__":
    sys.exit(run_tests())
