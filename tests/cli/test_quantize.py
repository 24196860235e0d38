#!/usr/bin/env python3
"""ward quantize as a user runs it: test_quantize.py WARD. Prints TAP; needs Python's standard library and the small checkpoints
of tests/vectors/models."""
import glob
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

from harness import (MODELS, PHANTOM, ROOT, WARD, Skip, answer, copy_of, equal, misused, png, refused, run, run_tests, scratch,
                     succeeds, temporary, test)

SEES = os.path.join(MODELS, "hybrid")
TYPES = ("int4", "q4_0", "int8", "bf16", "f16", "f32")
QUESTION = "Describe this X-ray."
IMAGE = None # made by prepare


def prepare():
    global IMAGE
    IMAGE = temporary("film.png", png(56, 56, lambda x, y: (x * y) % 256))


def folder():
    return tempfile.mkdtemp(dir=scratch)


def first_tensor(path):
    """Offset of the first matrix of a safetensors file, and its dtype."""
    with open(path, "rb") as file:
        length, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    tensor = next(t for name, t in sorted(header.items()) if name != "__metadata__" and len(t["shape"]) == 2)
    return 8 + length + tensor["data_offsets"][0], tensor["dtype"]


def gguf_keys(path):
    """The keys of a GGUF file that hold text or a number."""
    with open(path, "rb") as file:
        data = file.read()
    at = 24
    keys = {}

    def number(form):
        nonlocal at
        value, = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def text():
        nonlocal at
        length = number("Q")
        at += length
        return data[at - length:at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            element, count = number("I"), number("Q")
            return [value(element) for _ in range(count)]
        return number({4: "I", 5: "i", 6: "f", 7: "B"}[kind])

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        name = text()
        keys[name] = value(number("I"))
    return keys


# ---- what comes out -------------------------------------------------------------------------------------------------

@test
def float32_files_answer_as_the_checkpoint_does():
    for model in sorted(glob.glob(os.path.join(MODELS, "*", ""))):
        name = os.path.basename(os.path.dirname(model))
        with open(os.path.join(model, "config.json")) as file:
            sees = "vision_config" in json.load(file)
        out = os.path.join(folder(), "m.gguf")
        done = run("quantize", model, out, "--type", "f32")
        if done.returncode and b"cannot say" in done.stderr:
            continue # scales that no key of GGUF's holds
        equal(done.returncode, 0, f"exit status for {name} ({done.stderr!r})")
        for arguments in [["-i", IMAGE]] * sees + [[]]:
            arguments = [*arguments, "--cpu-mask", "none", "-n", "6", "--ignore-eos", "--logprobs", "5", QUESTION]
            expected, got = answer("-m", model, *arguments), answer("-m", out, *arguments)
            for key in ("prompt_ids", "ids"):
                equal(got[key], expected[key], f"{key} of {name}")
            for step, reference in zip(got["logprobs"], expected["logprobs"]):
                for one, other in zip(step["top"], reference["top"]):
                    assert abs(one["logprob"] - other["logprob"]) < 1e-4, f"{name}: {one} is not {other}"


@test
def phantom_still_reads_its_film():
    films = sorted(glob.glob(os.path.join(ROOT, "examples", "*.png")))
    if not films or not os.path.isdir(PHANTOM):
        raise Skip("models/phantom or a film in examples is not here")
    expected = succeeds("run", "-m", PHANTOM, "-i", films[0], QUESTION)
    for kind in TYPES:
        out = os.path.join(folder(), f"phantom-{kind}.gguf")
        succeeds("quantize", PHANTOM, out, "--type", kind)
        equal(succeeds("run", "-m", out, "-i", films[0], QUESTION), expected, f"answer of {kind}")


@test
def files_say_what_they_are():
    out = os.path.join(folder(), "m.gguf")
    report = json.loads(succeeds("quantize", SEES, out, "--type", "Q8_0", "--json"))
    mmproj = os.path.join(os.path.dirname(out), "mmproj-m.gguf")
    equal(report["type"], "Q8_0", "type")
    equal(report["text"], {"path": out, "bytes": os.path.getsize(out)}, "text")
    equal(report["mmproj"], {"path": mmproj, "bytes": os.path.getsize(mmproj)}, "mmproj")
    equal(report["notice"], None, "notice")
    text, vision = gguf_keys(out), gguf_keys(mmproj)
    equal((text["general.architecture"], text["general.file_type"], text["general.name"]), ("gemma3", 7, "hybrid"), "text's keys")
    equal((vision["general.architecture"], vision["clip.projector_type"]), ("clip", "gemma3"), "mmproj's keys")
    succeeds("quantize", SEES, out, "--force", "--name", "another name", "--mmproj", "none")
    equal(gguf_keys(out)["general.name"], "another name", "general.name")


@test
def gguf_is_a_source_too():
    place = folder()
    wide, direct, second = (os.path.join(place, name) for name in ("wide.gguf", "direct.gguf", "second.gguf"))
    succeeds("quantize", SEES, wide, "--type", "f32")
    succeeds("quantize", SEES, direct, "--type", "q4_0", "--name", "hybrid")
    succeeds("quantize", wide, second, "--type", "q4_0", "--source-mmproj", os.path.join(place, "mmproj-wide.gguf"))
    arguments = ["-n", "6", "--ignore-eos", "--logprobs", "3", QUESTION]
    one, other = answer("-m", direct, "--mmproj", "none", *arguments), answer("-m", second, "--mmproj", "none", *arguments)
    equal(other["logprobs"], one["logprobs"], "log-probabilities by way of f32")
    refused("quantize", second, os.path.join(place, "third.gguf"), "--mmproj", "none", words="--allow-requantize")
    succeeds("quantize", second, os.path.join(place, "third.gguf"), "--type", "q8_0", "--mmproj", "none", "--allow-requantize")


@test
def terms_travel_with_the_weights():
    model = copy_of(SEES)
    with open(os.path.join(model, "README.md"), "w") as card:
        card.write("---\nlicense: other\nlicense_name: health-ai-developer-foundations\nlicense_link: https://x/terms\n---\n# M\n")
    warned = run("run", "-m", model, "-n", "2", QUESTION).stderr.decode()
    assert "not for clinical use" in warned, warned
    out = os.path.join(folder(), "m.gguf")
    assert "Not for clinical use" in succeeds("quantize", model, out, "--type", "int8")
    with open(os.path.join(os.path.dirname(out), "m.NOTICE.txt")) as file:
        notice = file.read()
    assert "Health AI Developer Foundations Terms of Use" in notice and "MODIFIED" in notice, notice
    for path in (out, os.path.join(os.path.dirname(out), "mmproj-m.gguf")):
        keys = gguf_keys(path)
        equal(keys["general.license.name"], "health-ai-developer-foundations", "license")
        equal(keys["ward.notice"], notice, "notice inside")
    equal(answer("-m", out, "-n", "2", QUESTION)["model"]["not_for_clinical_use"], True, "JSON")
    again = os.path.join(folder(), "again.gguf") # from GGUF on to GGUF
    succeeds("quantize", out, again, "--type", "q4_0", "--allow-requantize")
    assert os.path.exists(again.replace(".gguf", ".NOTICE.txt"))


# ---- what does not --------------------------------------------------------------------------------------------------

@test
def wrong_usage():
    misused("quantize", words="two names")
    misused("quantize", SEES, words="two names")
    misused("quantize", SEES, "a.gguf", "b.gguf", words="two names")
    misused("quantize", SEES, "a.gguf", "--type", "q3_k", words="int4")
    misused("quantize", SEES, "a.gguf", "-t", "0", words="--threads")
    assert "Examples:" in succeeds("quantize", "--help")


@test
def files_are_not_replaced_by_accident():
    place = folder()
    out, mmproj = os.path.join(place, "m.gguf"), os.path.join(place, "mmproj-m.gguf")
    temporary("kept", b"kept")
    for existing in (out, mmproj):
        shutil.copy(os.path.join(scratch, "kept"), existing)
        refused("quantize", SEES, out, words="--force")
        with open(existing, "rb") as file:
            equal(file.read(), b"kept", "an existing file")
        os.remove(existing)
    refused("quantize", SEES, place, words="is a folder")
    refused("quantize", SEES, os.path.join(place, "no", "m.gguf"), words="No such file")
    refused("quantize", SEES, "/dev/null", words="/dev/null")
    refused("quantize", SEES, out, "--mmproj", out, words="image encoder")
    equal(os.listdir(place), [], "what was left")
    succeeds("quantize", SEES, out, "--type", "f32")
    refused("quantize", out, out, "--force", words="is what is read")
    refused("quantize", out, mmproj, "--mmproj", "none", "--force", words="is what is read")


@test
def values_that_are_no_numbers_are_refused():
    for kind, bits in (("int4", 0x7FC0), ("int8", 0x7F80), ("q4_0", 0xFF80), ("f16", 0x7F00), ("bf16", 0x7FC0)):
        model = copy_of(SEES)
        weights = os.path.join(model, "model.safetensors")
        at, dtype = first_tensor(weights)
        equal(dtype, "BF16", "the checkpoint's dtype")
        with open(weights, "r+b") as file:
            file.seek(at + 10)
            file.write(struct.pack("<H", bits))
        place = folder()
        refused("quantize", model, os.path.join(place, "m.gguf"), "--type", kind, words="no number")
        equal(os.listdir(place), [], "what was left")


@test
def broken_checkpoints_are_refused():
    model = copy_of(SEES)
    weights = os.path.join(model, "model.safetensors")
    with open(weights, "r+b") as file:
        file.truncate(os.path.getsize(weights) - 1)
    place = folder()
    refused("quantize", model, os.path.join(place, "m.gguf"), words="model.safetensors")
    refused("quantize", os.path.join(place, "nothing"), os.path.join(place, "m.gguf"), words="nothing")
    equal(os.listdir(place), [], "what was left")


@test
def full_disks_leave_nothing():
    place = folder()
    limit = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)))
    refused("quantize", SEES, os.path.join(place, "m.gguf"), words="cannot be written", preexec_fn=limit)
    equal(os.listdir(place), [], "what was left")


@test
def interrupted_work_leaves_nothing():
    if not os.path.isdir(PHANTOM):
        raise Skip("models/phantom is not here")
    place = folder()
    for number in (signal.SIGINT, signal.SIGTERM):
        interrupted = False
        for wait in (0.02, 0.04, 0.06, 0.03, 0.01, 0.1):
            process = subprocess.Popen([WARD, "quantize", PHANTOM, os.path.join(place, "m.gguf"), "-t", "1"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(wait)
            process.send_signal(number)
            process.wait()
            left = sorted(os.listdir(place))
            if process.returncode == 0: # it was done before
                equal(left, ["m.gguf", "mmproj-m.gguf"], "what was made")
                for name in left:
                    os.remove(os.path.join(place, name))
            else:
                interrupted = interrupted or process.returncode == 130
                equal([name for name in left if name.endswith(".gguf")], [], "whole files")
                if process.returncode == 130:
                    equal(left, [], "what was left")
        if not interrupted:
            print(f"# never caught at work by signal {number}")


if __name__ == "__main__":
    prepare()
    sys.exit(run_tests())
