#!/usr/bin/env python3
"""Whether ward uses this machine's NVIDIA card well: checks, figures, and what others reach on it, in one call.

    tools/card_report.py [--out DIR] [--minutes 9] [--model TYPE=PATH ...] [--scratch DIR]
    tools/card_report.py --projection [--shares report.json]
    tools/card_report.py --emulated

Writes DIR/report.json and DIR/report.md after every step, the most telling first, so that being cut off leaves what was
found until then. Without --model, checkpoints of random weights in MedGemma's size are made (25 GB of disk; ward synth,
ward quantize). Peers are PyTorch and transformers, where the Python of --python has them, and llama.cpp, where --llama
names the folder of its programs. Needs a built ward (--build, or what tools/portable.sh has put together) and Python's
standard library. Exit status 0: every check passed and no goal was missed; 1 otherwise, or there is no card.

--projection prints what the goals, the limits themselves, and the shares of a report would mean on other cards.
--emulated goes through the same steps, the short ones, on the card that tests/cuda emulates: its figures mean nothing.
"""

import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import card_goals
import card_text

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILM = os.path.join(ROOT, "examples", "phantom-effusion.png")
PHANTOM = os.path.join(ROOT, "models", "phantom")
TYPES = ("bf16", "int8", "q4_0")
QUESTION = "Describe this X-ray."
LITTLE = 5  # seconds: a step that takes no more is taken, whatever the time
Done = collections.namedtuple("Done", "status out err seconds timed_out")


class Fault(Exception):
    """What is wrong: a sentence, and the lines that a program printed about it."""

    def __init__(self, sentence, lines=()):
        super().__init__(sentence)
        self.lines = list(lines)[:60]


class Skip(Exception):
    """Why a step cannot be taken here."""


# ---- running programs --------------------------------------------------------------------------------------------------

class Machine:
    """The programs of a build, and how they are run."""

    def __init__(self, options):
        self.options = options
        self.ward = os.path.join(options.build, "ward")
        self.tests = os.path.join(options.build, "tests")
        libraries = [path for path in (os.path.join(ROOT, "lib", "ward"),) if os.path.isdir(path)]
        if options.emulated:
            libraries.insert(0, os.path.join(self.tests, "cuda"))
        self.environment = dict(os.environ)
        if libraries:
            self.environment["LD_LIBRARY_PATH"] = ":".join(libraries)
        self.deadline = time.monotonic() + 60 * options.minutes
        self.commands, self.running = [], set()

    def left(self):
        return self.deadline - time.monotonic()

    def run(self, command, limit, environment=None):
        """The program to its end, or to the end of its time, with all that it started."""
        self.record(command)
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env={**self.environment, **(environment or {})}, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        timed_out = False
        self.running.add(process)
        try:
            out, err = process.communicate(timeout=max(1, min(limit, self.left())))
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        self.running.discard(process)
        return Done(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), time.monotonic() - start, timed_out)

    def record(self, command):
        """For the page: once, without what names this machine."""
        words = " ".join(f'"{word}"' if " " in word else word for word in command)
        words = words.replace(self.options.scratch + "/", "SCRATCH/").replace(ROOT + "/", "").replace(sys.executable, "python3")
        if words not in self.commands:
            self.commands.append(words)

    def stop(self):
        """What still runs, as a checkpoint that nobody waits for."""
        for process in list(self.running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def json(self, command, limit, statuses=(0,)):
        done = self.run(command, limit)
        if done.timed_out or done.status not in statuses:
            raise Fault(f"{os.path.basename(command[0])} {command[1] if len(command) > 1 else ''}: "
                        f"{'no end after ' + format(done.seconds, '.0f') + ' s' if done.timed_out else last_line(done.err)}")
        try:
            return json.loads(done.out)
        except ValueError as error:
            raise Fault(f"{' '.join(command[:2])}: prints no JSON: {error}") from error

    def answer(self, model, *more, device="cuda", image=FILM, limit=60):
        arguments = ["-i", image] if image else []
        return self.json([self.ward, "run", "-m", model, "--device", device, "--json", *arguments, *more, QUESTION], limit)

    def test_program(self, name):
        path = os.path.join(self.tests, name)
        if not os.path.exists(path):
            raise Skip(f"{path} is not there")
        return path


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no word of why"


def judge_tap(done, must_run=True):
    """What a test program found, as words; a failure is a Fault."""
    lines = done.out.splitlines()
    passed = sum(line.startswith(("ok ", "[       OK")) and "# SKIP" not in line for line in lines)
    failed = [line for line in lines if line.startswith(("not ok ", "[  FAILED  ]"))]
    skipped = [line for line in lines if line.startswith("1..0 # SKIP")]
    if skipped and must_run:
        raise Skip(skipped[0].split("SKIP", 1)[1].strip())
    if failed:
        about = [line for line in lines if line.startswith("#") or line in failed]
        raise Fault(f"{len(failed)} of {passed + len(failed)} failed; the first: {failed[0]}", about)
    if done.timed_out:
        raise Skip(f"cut off after {done.seconds:.0f} s; until then {passed} passed and none failed")
    if done.status:
        raise Fault(f"exit status {done.status}: {last_line(done.err)}", done.err.splitlines()[-20:])
    return f"{passed} passed"


# ---- checkpoints -------------------------------------------------------------------------------------------------------

class Checkpoints(threading.Thread):
    """Makes them one after the other, beside the checks that leave the processor idle."""

    def __init__(self, machine):
        super().__init__(daemon=True)
        self.machine = machine
        self.paths = dict(pair.split("=", 1) for pair in machine.options.model)
        self.faults, self.ready = {}, {name: threading.Event() for name in TYPES}

    def make(self, name):
        if name in self.paths:
            return
        ward, preset = self.machine.ward, "tiny" if self.machine.options.emulated else "medgemma-4b"
        path = os.path.join(self.machine.options.scratch, name if name == "bf16" else f"{name}.gguf")
        if os.path.exists(path):  # of an earlier call
            self.paths[name] = path
            return
        command = [ward, "synth", "--preset", preset, path] if name == "bf16" else \
            [ward, "quantize", self.paths["bf16"], path, "--type", name]
        done = self.machine.run(command, 300)
        if done.status:
            self.faults[name] = last_line(done.err)
        else:
            self.paths[name] = path

    def run(self):
        for name in TYPES:
            if name == "bf16" or "bf16" in self.paths:
                self.make(name)
            self.ready[name].set()

    def get(self, name, limit):
        if not self.ready[name].wait(min(limit, max(0.1, self.machine.left()))):
            raise Fault(f"the {name} checkpoint is not made after {limit:.0f} s")
        if name not in self.paths:
            raise Fault(f"the {name} checkpoint could not be made: {self.faults.get(name, 'there is none to make it of')}")
        return self.paths[name]


# ---- the report --------------------------------------------------------------------------------------------------------

class Report:
    """What was found, on disk after every step."""

    def __init__(self, machine):
        self.machine, self.short = machine, machine.options.emulated
        self.checkpoints = Checkpoints(machine)
        self.image = os.path.join(machine.options.scratch, "film.png")
        self.document = {"format": "ward-card-report", "version": 1, "emulated": self.short,
                         "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "card": None, "limits": None,
                         "checks": [], "measured": {}, "peers": {}, "goals": [], "shares": None, "projection": [],
                         "commands": machine.commands}

    def write(self):
        card_goals.judge(self.document)
        for name, text in (("report.json", json.dumps(self.document, indent=1) + "\n"), ("report.md", card_text.page(self.document))):
            path = os.path.join(self.machine.options.out, name)
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(path + ".new", path)

    def take(self, name, step, limit):
        """A step, within its time; what it returns are words on what it found."""
        check = {"name": name, "status": "passed", "seconds": 0.0, "found": ""}
        start = time.monotonic()
        try:
            if self.machine.left() < LITTLE < limit:
                raise Skip("no time was left")
            check["found"] = step(self, max(LITTLE, min(limit, self.machine.left()))) or ""
        except Skip as why:
            check["status"], check["found"] = "skipped", str(why)
        except Fault as what:
            check["status"], check["found"], check["lines"] = "failed", str(what), what.lines
        except (OSError, KeyError, TypeError, ValueError, IndexError) as problem:  # a program that says what was not expected
            check["status"], check["found"] = "failed", f"{type(problem).__name__}: {problem}"
        check["seconds"] = round(time.monotonic() - start, 1)
        self.document["checks"].append(check)
        self.write()
        print(f"{check['seconds']:6.1f} s  {check['status']:7}  {name}: {check['found']}", flush=True)
        return check["status"]


# ---- steps: each takes the report and its time in seconds --------------------------------------------------------------

def look_at_card(report, limit):
    found = report.machine.json([report.machine.ward, "doctor", "--preset", "tiny", "--json"], limit, (0, 1))
    if not found["card"]:
        raise Fault(found["card_fault"] or "there is no NVIDIA card, or no driver for it")
    document = report.document
    document["ward"], document["card"], document["state"] = found["ward"], found["card"], found["card_state"]
    document["limits"], document["published"] = found["card_limits"], found["card_published"]
    document["machine"] = {key: found["machine"][key] for key in ("cpu", "cpus_usable", "memory_bytes", "system", "kernel")}
    limits = found["card_limits"]
    return (f"{found['card']['name']}, driver {found['card']['driver']}: copies {limits['copy_gbs']:.0f} GB/s, multiplies bf16 at "
            f"{limits['multiply_gops']['bf16'] / 1e3:.1f} TFLOP/s")


def refused(report, limit, *command):
    """What the kernel refuses to a locked ward with a card, as far as it comes."""
    usual = ("run", "-m", PHANTOM, "--device", "cuda", "-n", "1", "-i", FILM, QUESTION)
    done = report.machine.run([sys.executable, os.path.join(ROOT, "tools", "refused_calls.py"), report.machine.ward, *(command or usual)], limit)
    report.document["refused"] = [line for line in done.err.splitlines() if line.startswith("refused")]
    return f"{len(report.document['refused'])} kinds of calls"


def without_the_lock(report, problem, again, *command):
    """What fails behind the lock is done once more without: where that goes well, all that follows is measured so. Ends in a
    Fault that says which it is."""
    words = refused(report, 20, *command)
    report.machine.environment["LD_PRELOAD"] = os.path.join(report.machine.tests, "unlocked.so")
    try:
        again()
    except Fault:
        del report.machine.environment["LD_PRELOAD"]
        raise Fault(f"{problem}; without the lock as well", problem.lines) from problem
    report.document["unlocked"] = True
    raise Fault(f"{problem}; not so without the lock, which refused {words}", problem.lines) from problem


def card(report, limit):
    try:
        return look_at_card(report, limit / 3)
    except Fault as problem:
        return without_the_lock(report, problem, lambda: look_at_card(report, limit / 3), "doctor", "--preset", "tiny")


def operations(report, limit):
    only = ["--only", "rotation"] if report.short else []
    return judge_tap(report.machine.run([report.machine.test_program("checkcard"), *only], limit))


def sessions(report, limit):
    done = report.machine.run([report.machine.test_program("test_session")], limit, {"WARD_TEST_DEVICE": "cuda"})
    return judge_tap(done._replace(out=done.out + done.err))


def command_line(report, limit):
    return judge_tap(report.machine.run([sys.executable, "tests/cli/test_cuda.py", report.machine.ward], limit, {"WARD_TEST_CARD": "1"}))


def vectors(report, limit):
    return judge_tap(report.machine.run([sys.executable, "tests/vectors/run.py", report.machine.ward, "--device", "card", "--quick"], limit))


def lock(report, limit):
    machine, more = report.machine, ["-n", "3"] if report.short else []
    if "unlocked" in report.document:
        raise Skip("it is taken away")
    try:
        found = machine.answer(PHANTOM, *more, limit=limit / 3)
    except Fault as problem:
        return without_the_lock(report, problem, lambda: machine.answer(PHANTOM, *more, limit=limit / 3))
    if not (found["offline"]["enforced"] and found["device"] == "cuda"):
        raise Fault(f"locked: {found['offline']['enforced']}, on {found['device']}: {found['offline']['missing']}")
    same = machine.answer(PHANTOM, *more, device="cpu")
    if found["ids"] != same["ids"]:
        raise Fault(f"the card says other than the processor: {found['text']!r}, {same['text']!r}")
    return f"locked in, and the processor's answer: {len(found['ids'])} tokens"


def measure(name):
    def step(report, limit):
        start = time.monotonic()
        model = report.checkpoints.get(name, limit)
        report.checkpoints.join(limit / 2)  # nothing else is to use the processor now
        short = ["-r", "1", "--warmups", "1", "--warmup-tokens", "2", "-n", "3"]
        usual = ["-r", "5", "--warmups", "2", "--warmup-tokens", "20", "-n", "200"]
        command = [report.machine.ward, "bench", "-m", model, "-i", report.image, "--device", "cuda", "--fixed", "--no-cold", "--limits",
                   "--ctx", "2048", "-o", "json", *(short if report.short else usual)]
        result = report.machine.json(command, limit - (time.monotonic() - start))["results"][0]
        if not result["complete"] or result["device"] != "cuda":
            raise Fault(f"measured on {result['device']}: {'; '.join(result['warnings'])}")
        report.document["measured"][name] = {key: result[key] for key in (
            "model", "test", "latency_ms", "stages", "tokens", "throughput", "energy", "limits", "card", "warnings")}
        report.document["measured"][name]["memory"] = {key: (result["memory"][key] or {}).get("device")
                                                       for key in ("load_peak", "steady", "with_image")}
        report.document["measured"][name]["card_after"] = result["machine"]["card_after"]
        shares = result["limits"]
        return (f"{result['throughput']['decode_tps']:.1f} tokens/s, {100 * shares['decode_share']:.1f} % of copying; encoder "
                f"{100 * shares['vision_share']:.1f} % of the peak; first token after {first_token(result):.1f} ms; whole "
                f"{result['latency_ms']['mean']:.0f} ms")
    return step


def first_token(result):
    return sum(result["stages"][stage]["mean"] for stage in ("image", "vision", "prefill", "first_token"))


def peers(*measures):
    def step(report, limit):
        command = [report.machine.options.python, os.path.join(ROOT, "tools", "card_peers.py"), report.checkpoints.get("bf16", limit), report.image, *measures]
        done = report.machine.run(command, limit, {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""), "LD_PRELOAD": ""})
        found = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
        report.document["peers"].update({figures["name"]: figures for figures in found})
        names = ", ".join(figures["name"] for figures in found)
        if "ModuleNotFoundError" in done.err:
            raise Skip(f"{last_line(done.err)}; measured: {names or 'nothing'}")
        if done.timed_out:
            raise Skip(f"cut off after {done.seconds:.0f} s; measured: {names or 'nothing'}")
        if done.status:
            raise Fault(f"{last_line(done.err)}; measured: {names or 'nothing'}", done.err.splitlines()[-20:])
        return names
    return step


def llama(report, limit):
    folder = report.machine.options.llama
    if not folder:
        raise Skip("no --llama")
    found = []
    for name in ("q4_0", "int8"):
        rows = report.machine.json([os.path.join(folder, "llama-bench"), "-m", report.checkpoints.get(name, limit), "-p", "300", "-n",
                                    "200", "-r", "3", "-ngl", "99", "-o", "json"], limit / 2)
        report.document["peers"][f"llama.cpp {name}"] = {"decode_tps": next(row["avg_ts"] for row in rows if row["n_gen"]),
                                                         "prefill_tps": next(row["avg_ts"] for row in rows if not row["n_gen"])}
        found.append(f"{name} {report.document['peers'][f'llama.cpp {name}']['decode_tps']:.1f} tokens/s")
    return "; ".join(found)


def two_at_once(report, limit):
    """Two processes on the card at the same time, each with the seed that it had alone: so the seed is shown as well."""
    machine = report.machine
    model = report.checkpoints.get("q4_0", limit)
    seeds, length = ("7", "8"), "4" if report.short else "150"

    def ids(seed):
        return machine.answer(model, "--temp", "1", "--seed", seed, "-n", length, "--ignore-eos", image=None, limit=limit / 3)["ids"]

    alone, together = [ids(seed) for seed in seeds], [None, None]

    def work(at):
        try:
            together[at] = ids(seeds[at])
        except Fault as problem:
            together[at] = str(problem)
    threads = [threading.Thread(target=work, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, first, second in zip(seeds, alone, together):
        if first != second:
            raise Fault(f"seed {seed} gives another answer beside a second process: {second if isinstance(second, str) else 'other ids'}")
    return f"two processes, {length} tokens each, the ids of each seed alone"


def beside_the_processor(report, limit):
    """The same full-size answer by the processor. Of random weights the margins are small, so ids are compared as far as they
    are the same, and log-probabilities over these."""
    model, n = report.checkpoints.get("bf16", limit), "2" if report.short else "12"
    more = ["-n", n, "--ignore-eos", "--logprobs", "4"]
    on_card, on_cpu = (report.machine.answer(model, *more, device=device, image=report.image, limit=limit / 2) for device in ("cuda", "cpu"))
    same, errors = 0, []
    for ours, theirs in zip(on_card["logprobs"], on_cpu["logprobs"]):
        listed = {entry["id"]: entry["logprob"] for entry in theirs["top"]}
        errors += [abs(entry["logprob"] - listed[entry["id"]]) for entry in ours["top"] if entry["id"] in listed]
        if ours["id"] != theirs["id"]:
            margin = theirs["top"][0]["logprob"] - theirs["top"][1]["logprob"]
            if margin > 2 * max(errors, default=0):
                raise Fault(f"token {same + 1} is another one, though the processor has its choice ahead by {margin:.4f}")
            return f"{same} tokens the same, then one whose margin is {margin:.4f}; log-probabilities within {max(errors):.4f}"
        same += 1
    return f"{same} tokens the same; log-probabilities within {max(errors):.4f}"


def sanitize(tool):
    def step(report, limit):
        program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        if not os.path.exists(program):
            raise Skip("compute-sanitizer is not here")
        checkcard = report.machine.test_program("checkcard")
        done = report.machine.run([program, "--tool", tool, "--error-exitcode", "9", checkcard], limit)
        said = [line.strip("= ") for line in done.out.splitlines() if line.startswith("=====")]
        summary = [line for line in said if "SUMMARY" in line]
        if done.status == 9:
            raise Fault(summary[-1] if summary else "errors without a summary", [line for line in said if line])
        passed = judge_tap(done._replace(out="\n".join(line for line in done.out.splitlines() if not line.startswith("====="))))
        return f"{summary[-1] if summary else 'no summary'}; {passed}"
    return step


Step = collections.namedtuple("Step", "name take limit short")  # short: on the emulated card, too
STEPS = [
    Step("every operation", operations, 60, True),
    Step("the lock", lock, 60, True),
    Step("bf16", measure("bf16"), 200, True),
    Step("int8", measure("int8"), 90, False),
    Step("q4_0", measure("q4_0"), 90, False),
    Step("PyTorch's limits, transformers' encoder and pipeline", peers("ceilings", "encoder", "pipeline"), 120, False),
    Step("golden answers", vectors, 120, False),
    Step("two processes, the same seed", two_at_once, 60, True),
    Step("sessions", sessions, 60, False),
    Step("compute-sanitizer memcheck", sanitize("memcheck"), 45, False),
    Step("compute-sanitizer racecheck", sanitize("racecheck"), 45, False),
    Step("the command line", command_line, 60, False),
    Step("compute-sanitizer initcheck", sanitize("initcheck"), 45, False),
    Step("compute-sanitizer synccheck", sanitize("synccheck"), 45, False),
    Step("beside the processor", beside_the_processor, 60, False),
    Step("what the lock refuses", refused, 40, False),
    Step("llama.cpp", llama, 60, False),
    Step("transformers with a static cache", peers("static"), 120, False),
]


# ---- what is known without a card --------------------------------------------------------------------------------------

def project(machine, shares):
    """Rows of doctor's predictions on other cards, with shares of their limits."""
    path = os.path.join(machine.options.scratch, "shares.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"shares": shares}, file)
    rows = []
    for device in card_goals.OTHERS:
        found = machine.json([machine.ward, "doctor", "--device", device, "--shares", path, "--json"], 30, (0, 1))
        for entry in found["types"]:
            if entry["type"] in shares["read"] and entry["predicted_ms"]:
                rows.append({"device": device, "type": entry["type"], "fits": entry["fits"], "target_ms": found["target_ms"],
                             "tokens_in_time": entry["tokens_in_time"], **entry["predicted_ms"]})
    return rows


def other_cards(report, _limit):
    shares = report.document["shares"] = card_goals.shares(report.document)
    if not shares:
        raise Skip("bf16 was not measured")
    report.document["projection"] = project(report.machine, shares)
    return f"{len(report.document['projection'])} predictions from the shares reached here"


def print_projections(machine):
    given = machine.options.shares
    kinds = [*card_goals.BOUNDS]
    if given:
        with open(given, encoding="utf-8") as file:
            kinds.append(json.load(file)["shares"])
    for shares in kinds:
        print(card_text.projection(shares, project(machine, shares)))


# ---- the whole ---------------------------------------------------------------------------------------------------------

def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", default="card-report", help="folder for report.json and report.md (card-report)")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--minutes", type=float, default=9, help="that all of it may take (9)")
    parser.add_argument("--model", action="append", default=[], metavar="TYPE=PATH", help="bf16, int8 or q4_0: a checkpoint that is here")
    parser.add_argument("--scratch", help="folder for checkpoints of random weights; it is kept (a temporary one)")
    parser.add_argument("--python", default=sys.executable, help="with PyTorch and transformers (this one)")
    parser.add_argument("--llama", help="folder of llama-bench")
    parser.add_argument("--only", default="", help="steps whose name holds this")
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--projection", action="store_true")
    parser.add_argument("--shares", help="a report.json, with --projection")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    return options


def take_all(report):
    """True: nothing failed, no goal was missed."""
    card_goals.draw_film(report.image)
    report.take("the card", card, 90)
    if not report.document["card"]:
        return False
    report.checkpoints.start()
    for step in STEPS:
        if step.name.find(report.machine.options.only) >= 0 and (step.short or not report.short):
            report.take(step.name, step.take, step.limit)
    report.take("other cards", other_cards, LITTLE)
    document = report.document
    return not any(check["status"] == "failed" for check in document["checks"]) and \
        not any(goal["met"] is False for goal in document["goals"] if not report.short)


def main():
    options = parse()
    machine = Machine(options)
    if not os.path.exists(machine.ward):
        sys.exit(f"{machine.ward}: is not there: make builds it")
    kept, options.scratch = options.scratch, os.path.abspath(options.scratch or tempfile.mkdtemp(prefix="card-report-"))
    os.makedirs(options.scratch, exist_ok=True)
    try:
        if options.projection:
            print_projections(machine)
            return
        os.makedirs(options.out, exist_ok=True)
        report = Report(machine)
        good = take_all(report)
    finally:
        machine.stop()
        if not kept:
            shutil.rmtree(options.scratch, ignore_errors=True)
    print(f"{'every check passed, no goal missed' if good else 'not all is well'}: {os.path.join(options.out, 'report.md')}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
