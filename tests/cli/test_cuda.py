#!/usr/bin/env python3
"""ward on an NVIDIA card as a user has it: test_cuda.py WARD. Prints TAP; needs Python's standard library. The driver and the
card are emulated (tests/cuda), which can also be made to fail; with WARD_TEST_CARD=1 it is the card of this machine."""
import ctypes
import json
import os
import subprocess
import sys
import tempfile

from harness import MODELS, PHANTOM, WARD, Skip, answer, equal, misused, refused, run, run_tests, scratch, succeeds, test

FILM = os.path.join(os.path.dirname(os.path.dirname(PHANTOM)), "examples", "phantom-effusion.png")
QUESTION = "Describe this X-ray."
TEXT = os.path.join(MODELS, "text")
DRIVER = os.path.join(os.path.dirname(WARD), "tests", "cuda")
REAL = "WARD_TEST_CARD" in os.environ
STATE = {"mhz": 1500, "mhz_limit": 1800, "memory_mhz": 5000, "celsius": 61, "watts": 100.0, "watts_limit": 250.0, "slowed": False}


def emulated(**more):
    """The environment in which ward finds the emulated driver; names in small letters: WARD_EMULATED_..."""
    if REAL and {"fail", "kind", "memory"} & set(more):
        raise Skip("the card of this machine is not made another, nor to fail")
    if REAL:
        return dict(os.environ)
    if not os.path.exists(os.path.join(DRIVER, "libcuda.so.1")):
        raise Skip("the emulated driver was not built")
    environment = {**os.environ, "LD_LIBRARY_PATH": DRIVER}
    environment.update({f"WARD_EMULATED_{name.upper()}": value for name, value in more.items()})
    return environment


def own_card():
    """(name, kernels, driver) as the driver's own program has them, where it is here."""
    try:
        query = subprocess.run(["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader", "-i", "0"],
                               stdout=subprocess.PIPE, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        card = json.loads(run("doctor", "--preset", "tiny", "--json").stdout)["card"]
        return card["name"], card["kernels"].rstrip("a"), card["driver"]
    name, capability, driver = (word.strip() for word in query.split(","))
    return name, "sm_" + capability.replace(".", ""), driver


CARD = own_card() if REAL else ("Emulated Card", "sm_100", "570.00.01")


def is_state(state):
    """What the meters say: known of the emulated card, possible of another."""
    if not REAL:
        equal(state, STATE, "the meters")
    equal(set(state), set(STATE), "names")
    assert 0 < state["mhz"] <= state["mhz_limit"] and 0 < state["watts"] < 2 * state["watts_limit"] and 0 < state["celsius"] < 120, state


def has_kernels():
    done = run("run", "-m", TEXT, "--device", "cuda", "-n", "1", "Hi", env=emulated())
    if b"has no kernels for NVIDIA cards" in done.stderr:
        raise Skip("this build has no kernels for NVIDIA cards: nvcc is not here")


@test
def a_card_gives_the_answer_of_the_processor():
    has_kernels()
    arguments = ("-m", PHANTOM, "-i", FILM, QUESTION)
    on_card, on_cpu = (answer(*arguments, "--device", device, env=emulated()) for device in ("cuda", "cpu"))
    equal(on_card["text"], on_cpu["text"], "the answer")
    equal((on_card["device"], on_card["device_name"], on_card["kernels"].rstrip("a")), ("cuda", *CARD[:2]), "the device")
    equal(on_cpu["device"], "cpu", "the device")
    assert "device_name" not in on_cpu and on_cpu["memory"]["device_bytes"] == 0, on_cpu
    assert on_card["memory"]["device_bytes"] > 8 << 20, on_card["memory"]
    card = on_card["card"]
    equal((card["name"], card["kernels"].rstrip("a"), card["driver"]), CARD, "the card") # sm_90a is sm_90's
    assert 0 < card["free_bytes"] < card["memory_bytes"] and card["cuda"], card
    context = card["context_bytes"] # not told in a container
    assert context is None or context > 0 if REAL else context == 300000000, card
    is_state(on_card["card_state"])
    if not REAL: # 100 W, always
        assert abs(on_card["card_joules"] - on_card["timings"]["total_ms"] / 10) < on_card["timings"]["total_ms"] / 20 + 1, on_card
    assert not {"card", "card_state", "card_joules"} & set(on_cpu), on_cpu


@test
def a_card_without_early_launches_gives_the_same():
    has_kernels()
    arguments = ("-m", TEXT, "--device", "cuda", "-n", "8", "--ignore-eos", "Hi")
    older, newer = (answer(*arguments, env=emulated(kind=kind)) for kind in ("86", "100"))
    equal((older["kernels"], newer["kernels"]), ("sm_86", "sm_100"), "the kernels")
    equal(older["text"], newer["text"], "the answer")


@test
def the_log_tells_the_card():
    has_kernels()
    home = tempfile.mkdtemp(dir=scratch)
    log, key = os.path.join(home, "log"), os.path.join(home, "auditor.key")
    succeeds("audit", "init", "--log", log, "--out", key, "--no-passphrase")
    succeeds("run", "-m", TEXT, "--device", "cuda", "-n", "1", "Hi", env={**emulated(), "WARD_AUDIT": log})
    records = [json.loads(line)["record"] for line in
               succeeds("audit", "show", "--log", log, "--key", key, "--json").splitlines()]
    models = [record["model"] for record in records if "model" in record]
    equal([(model["device"], model["device_name"]) for model in models], [("cuda", CARD[0])], "the record")


@test
def the_lock_holds_with_a_card():
    has_kernels()
    state = answer("-m", TEXT, "--device", "cuda", "-n", "2", "Hi", env=emulated())["offline"]
    assert state["enforced"] and state["seccomp"] and state["landlock"], state


@test
def the_lock_lets_the_driver_of_an_ordinary_user_start():
    """To whom, once no debugger may attach, what /proc tells of the process belongs no longer."""
    if os.geteuid() != 0:
        raise Skip("these tests are an ordinary user's already")
    has_kernels()
    nobody = {"preexec_fn": lambda: os.setuid(65534), "env": {**emulated(), "XDG_CACHE_HOME": "/nonexistent"}}
    try:
        run("--version", **nobody)
    except OSError as why:
        raise Skip(f"an ordinary user does not reach {WARD}: {why}")
    equal(answer("-m", TEXT, "--device", "cuda", "-n", "1", "Hi", **nobody)["device"], "cuda", "the device")


@test
def auto_takes_a_card_and_a_mask_takes_the_processor():
    has_kernels()
    equal(answer("-m", TEXT, "-n", "1", "Hi", env=emulated())["device"], "cuda", "without an option")
    equal(answer("-m", TEXT, "-n", "1", "Hi", "--cpu-mask", "none", env=emulated())["device"], "cpu", "with a mask")
    equal(answer("-m", TEXT, "-n", "1", "Hi", "--device", "cuda:0", env=emulated())["device"], "cuda", "by its number")


@test
def auto_says_why_it_does_not_take_a_card():
    has_kernels()
    for failing, words in (({"fail": "capability"}, "compute capability 6.6; ward needs 7.5"),
                           ({"fail": "none"}, "finds no card"), ({"memory": "9"}, "of its 9 MB 5 are free"),
                           ({"fail": "init"}, "does not start"), ({"fail": "image"}, "does not take ward's kernels")):
        done = run("run", "-m", PHANTOM, "-n", "1", "Hi", env=emulated(**failing))
        equal(done.returncode, 0, f"exit status with {failing} ({done.stderr})")
        assert b"the processor computes: " in done.stderr and words.encode() in done.stderr, done.stderr


@test
def a_card_that_was_asked_for_and_fails_is_an_error():
    has_kernels()
    for failing, words in (({"fail": "capability"}, "compute capability"), ({"fail": "none"}, "finds no card"),
                           ({"memory": "3"}, "to begin with"), ({"memory": "9"}, "takes"), ({"fail": "init"}, "does not start"),
                           ({"fail": "image"}, "does not take ward's kernels")):
        refused("run", "-m", TEXT, "--device", "cuda", "-n", "1", "Hi", env=emulated(**failing), words=words)
    refused("run", "-m", TEXT, "--device", "cuda:3", "-n", "1", "Hi", env=emulated(), words="there is no card 3")


@test
def a_driver_that_lacks_a_call_is_too_old():
    has_kernels()
    old = tempfile.mkdtemp(dir=scratch)
    call = b"cuGraphInstantiateWithFlags"
    with open(os.path.join(DRIVER, "libcuda.so.1"), "rb") as driver, open(os.path.join(old, "libcuda.so.1"), "wb") as without:
        without.write(driver.read().replace(call + b"\0", call[:-1] + b"z\0"))
    refused("run", "-m", TEXT, "--device", "cuda", "-n", "1", "Hi", env={**emulated(), "LD_LIBRARY_PATH": old},
            words="too old: it has no cuGraphInstantiateWithFlags; ward needs that of CUDA 11.4")


@test
def memory_that_files_leave_is_a_jetsons():
    has_kernels()
    equal(answer("-m", TEXT, "--device", "cuda", "-n", "1", "Hi", env=emulated(integrated="1"))["device"], "cuda", "the device")


@test
def a_card_that_computes_wrongly_is_not_used():
    has_kernels()
    for kernel, words in (("matrix_bf16", "a product with weights of bf16"),
                          ("matrix_small_bf16", "a product with weights of bf16"), ("vector_bf16", "a product with weights of bf16"),
                          ("flash", "attention"), ("attend_few", "attention"), ("store", "attention"), ("rms_norm", "a norm"),
                          ("choose_whole", "likeliest")):
        refused("run", "-m", PHANTOM, "--device", "cuda", "-n", "1", "Hi", env=emulated(fail=f"skip:{kernel}"), words=words)
    done = run("run", "-m", PHANTOM, "-n", "1", "Hi", env=emulated(fail="skip:matrix_bf16"))
    equal(done.returncode, 0, f"exit status ({done.stderr})")
    assert b"the processor computes: Emulated Card computes wrongly" in done.stderr, done.stderr


@test
def older_kernels_compute_where_newer_ones_fail():
    has_kernels()
    hopper = answer("-m", PHANTOM, "-n", "1", "Hi", "--device", "cuda", env=emulated(kind="90"))
    equal(hopper["kernels"], "sm_90a", "the kernels")
    done = run("run", "-m", PHANTOM, "--device", "cuda", "-n", "1", "Hi", env=emulated(kind="90", fail="skip:wgmma_bf16"))
    equal(done.returncode, 0, f"exit status ({done.stderr})")
    assert b"older kernels compute: Emulated Card computes wrongly" in done.stderr, done.stderr
    refused("run", "-m", PHANTOM, "--device", "cuda", "-n", "1", "Hi", env=emulated(kind="90", fail="skip:matrix_small"),
            words="a product with weights of")


@test
def an_answer_that_a_card_did_not_finish_is_no_answer():
    has_kernels()
    for launch in ("1", "60", "150", "220"): # in the weights, the encoder, the prompt, a step
        done = run("run", "-m", PHANTOM, "-i", FILM, "--device", "cuda", "--json", QUESTION, env=emulated(fail=f"launch:{launch}"))
        equal(done.returncode, 1, f"exit status when launch {launch} fails")
        assert not done.stdout and b"CUDA_ERROR_LAUNCH_FAILED" in done.stderr, done
        equal(len(done.stderr.splitlines()), 1, f"lines of {done.stderr!r}")


@test
def without_a_driver_the_processor_computes_in_silence():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        raise Skip("this machine has NVIDIA's driver")
    done = run("run", "-m", TEXT, "-n", "1", "Hi")
    equal((done.returncode, done.stderr), (0, b""), "auto")
    refused("run", "-m", TEXT, "--device", "cuda", "-n", "1", "Hi", words="no NVIDIA driver: libcuda.so.1 was not found")
    misused("run", "-m", TEXT, "--device", "cuda:", "Hi", words="auto, cpu, cuda or cuda:N")


@test
def drafts_and_drawn_answers_are_repeatable():
    has_kernels()
    drawn = ["-m", TEXT, "-n", "12", "--temp", "1", "--seed", "5", "--ignore-eos", "--device", "cuda", "the the the"]
    first = answer(*drawn, env=emulated())["ids"]
    equal(answer(*drawn, env=emulated(order="reverse"))["ids"], first, "the same seed")
    # Log-probabilities need the logits, by which the processor then draws.
    for limits in ((), ("--top-k", "20", "--top-p", "0.9"), ("--top-p", "0.8", "--draft-max", "7"), ("--min-p", "0.1")):
        equal(answer(*drawn, *limits, env=emulated())["ids"], answer(*drawn, *limits, "--logprobs", "1", env=emulated())["ids"],
              f"drawn on the card and on the processor, {limits}")
    greedy = ["-m", TEXT, "-n", "12", "--ignore-eos", "--device", "cuda", "the the the"]
    equal(answer(*greedy, "--draft-max", "7", env=emulated())["ids"], answer(*greedy, "--draft-max", "0", env=emulated())["ids"],
          "with drafts and without")


@test
def bench_measures_a_card():
    has_kernels()
    document = json.loads(succeeds("bench", "-m", TEXT, "-i", "none", "-r", "1", "--warmups", "1", "-n", "2", "--device", "cuda,cpu",
                                   "--no-cold", "--limits", "-o", "json", env=emulated()))
    on_card, on_cpu = document["results"]
    equal((on_card["device"], on_card["device_name"], on_cpu["device"]), ("cuda", CARD[0], "cpu"), "devices")
    memory = on_card["memory"]
    assert 0 < memory["load_peak"]["device"] < memory["steady"]["device"], memory
    equal(on_cpu["memory"]["steady"]["device"], 0, "memory of a card without one")
    is_state(on_card["machine"]["card_after"])
    equal((on_card["card"]["driver"], on_cpu["card"]), (CARD[2], None), "the cards")
    rows = {row["name"]: row["value"] for row in on_card["rows"]}
    equal(rows["device memory"], round(memory["steady"]["device"] / (1 << 30), 3), "the page's row") # nothing was given back
    limits = on_card["limits"]
    assert "read_gbs" not in limits["measured"] and limits["measured"]["copy_gbs"] > 0, limits
    equal(limits["measured"]["multiply_gops"]["bf16"], max(filter(None, limits["measured"]["instruction_gops"].values())), "the peak")
    throughput = on_card["throughput"]["decode_tps"] * limits["token_bytes"] / 1e9
    assert abs(limits["decode_share"] - throughput / limits["measured"]["copy_gbs"]) < 0.1 * limits["decode_share"] + 1e-4, limits
    assert on_cpu["limits"]["measured"]["read_gbs"] > 0, on_cpu["limits"]
    equal(on_cpu["machine"]["card_after"], None, "the card's state without one")
    energy = on_card["energy"]
    assert "nvml" in energy["source"], energy
    if not REAL: # 100 W, always, which idle takes off
        assert energy["idle_watts"] > 90 and abs(energy["joules_run"]) < 30, energy


@test
def doctor_measures_a_card():
    has_kernels()
    done = run("doctor", "--preset", "tiny", "--json", env=emulated())
    found = json.loads(done.stdout)
    equal((found["computed_on"], found["card"]["name"]), ("cuda", CARD[0]), "the card")
    is_state(found["card_state"])
    limits = found["card_limits"]
    assert 0 < limits["copy_mean_gbs"] <= limits["copy_gbs"] and limits["multiply_gops"]["bf16"] > 0, limits
    for entry in found["types"]: # less than the card has is there for the model
        equal(entry["memory_bytes"] + entry["spare_bytes"], found["card"]["free_bytes"], "room")
        assert entry["predicted_ms"]["token"] >= entry["bytes_a_token"] / limits["copy_gbs"] / 1e6 - 0.01, entry
    text = run("doctor", "--preset", "tiny", env=emulated()).stdout.decode()
    for words in (CARD[0], f"driver {CARD[2]}", " W, ", "memory is copied at", "mma.sync"):
        assert words in text, text
    found = json.loads(run("doctor", "--preset", "tiny", "--json", env=emulated(fail="launch:2")).stdout)
    equal((found["computed_on"], found["card"]), ("cpu", None), "a card that fails")
    driver = {check["name"]: check for check in found["minimum"]}["driver"]
    assert driver["verdict"] == "warning" and "CUDA_ERROR_LAUNCH_FAILED" in driver["found"], driver
    assert "CUDA_ERROR_LAUNCH_FAILED" in found["card_fault"], found


if __name__ == "__main__":
    sys.exit(run_tests())
