#!/usr/bin/env python3
"""The audit log as a user, an auditor and an attacker meet it: test_audit.py WARD [--quick] [--kills N]. Prints TAP; needs
Python's standard library. --kills: how often a run is killed at a random moment (15; with --quick 5)."""
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

from harness import (MODELS, PHANTOM, ROOT, WARD, Skip, Terminal, equal, misused, refused, run, run_tests, scratch, succeeds, temporary,
                     test)

QUICK = "--quick" in sys.argv
KILLS = int(sys.argv[sys.argv.index("--kills") + 1]) if "--kills" in sys.argv else 5 if QUICK else 15
FILM = os.path.join(ROOT, "examples", "phantom-effusion.png")
QUESTION = "Describe this X-ray."
SHORT = os.path.join(MODELS, "short") # a tokenizer of a few tokens
READER = os.path.join(ROOT, "tools", "read_audit.py")


class Log:
    def __init__(self, *more):
        self.home = tempfile.mkdtemp(dir=scratch)
        self.dir, self.key = os.path.join(self.home, "log"), os.path.join(self.home, "auditor.key")
        made = succeeds("audit", "init", "--log", self.dir, "--out", self.key, "--no-passphrase", *more)
        self.anchor = re.search("^anchor: ([0-9a-f]{64})$", made, re.M).group(1)
        self.env = {**os.environ, "WARD_AUDIT": self.dir}

    def use(self, **more):
        """The quickest use that there is: two records."""
        return run("tokenize", "-m", SHORT, "a", env=self.env, **more)

    def answer(self, *more, **kinds):
        return run("run", "-m", PHANTOM, "-i", FILM, *more, QUESTION, env=self.env, **kinds)

    def records(self, key=None):
        text = succeeds("audit", "show", "--log", self.dir, "--key", key or self.key, "--json")
        return [json.loads(line) for line in text.splitlines()]

    def verify(self, *more):
        return run("audit", "verify", "--log", self.dir, "--anchor", self.anchor, *more)

    def good(self, *more):
        done = self.verify(*more)
        equal(done.returncode, 0, f"verify ({done.stderr!r})")
        return done.stdout.decode()

    def bad(self, words, *more):
        done = self.verify(*more)
        equal(done.returncode, 1, f"exit status of verify ({done.stdout!r})")
        assert words in done.stderr.decode(), f"verify said {done.stderr!r}, not {words!r}"

    def segment(self, number=1):
        return os.path.join(self.dir, "%08d.log" % number)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def content(path):
    with open(path, "rb") as file:
        return file.read()


# ---- what is recorded --------------------------------------------------------------------------------------------------


@test
def a_use_has_a_beginning_and_an_end():
    log = Log()
    done = log.answer("--user", "dr.house", "--study", "1.2.3", "--study", "1.2.4", "--temp", "0.5", "--seed", "7")
    equal(done.returncode, 0, "exit status")
    header, begin, end = log.records()
    equal((header["type"], begin["type"], end["type"], end["of"]), ("header", "begin", "end", 1), "types")
    record = begin["record"]
    equal(record["command"], "run", "command")
    equal(record["user"]["stated"], "dr.house", "--user")
    equal(record["user"]["uid"], os.getuid(), "uid")
    equal(record["study"], ["1.2.3", "1.2.4"], "studies")
    equal(record["inputs"]["question_sha256"], sha256(QUESTION.encode()), "hash of the question")
    equal(record["inputs"]["images"][0]["file_sha256"], sha256(content(FILM)), "hash of the image's file")
    equal(record["model"]["config_sha256"], sha256(content(os.path.join(PHANTOM, "config.json"))), "hash of the config")
    equal((record["parameters"]["temperature"], record["parameters"]["seed"], record["parameters"]["max_tokens"]),
          (0.5, "7", 200), "parameters")
    assert record["offline"]["enforced"] in (True, False), "the lock is recorded"
    equal(end["record"]["outcome"], "stop", "outcome")
    equal(end["record"]["output"]["sha256"], sha256(done.stdout[:-1]), "hash of the answer")
    assert abs(time.time() - time.mktime(time.strptime(begin["time"][:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 600, \
        begin["time"]
    equal(begin["boot"], content("/proc/sys/kernel/random/boot_id").decode().strip().replace("-", ""), "boot id")


@test
def json_and_pixels_are_recorded_the_same():
    log = Log()
    text = json.loads(log.answer("--json").stdout)["text"]
    records = log.records()
    equal(records[2]["record"]["output"]["sha256"], sha256(text.encode()), "hash of the answer")
    small = run("preprocess", "-m", PHANTOM, "-i", FILM, "--size", "8", "--out", "-", env=log.env)
    equal(small.returncode, 0, "exit status of preprocess")
    equal([r["type"] for r in log.records()], ["header", "begin", "end", "begin", "end"], "types")
    equal(log.records()[4]["record"]["outcome"], "done", "outcome of preprocess")


@test
def text_and_file_names_stay_out_unless_asked_for():
    log = Log()
    film = temporary("JANE-DOE-1970.png", content(FILM))
    question = "Is Jane Doe ill?"
    run("run", "-m", PHANTOM, "-i", film, question, env=log.env)
    recorded = json.dumps(log.records())
    for secret in ("JANE", "Jane", "phantom-effusion", "Opacity"):
        assert secret not in recorded, f"{secret} is recorded"
    assert b"jane" not in content(log.segment()).lower()
    answer = run("run", "-m", PHANTOM, "-i", film, "--audit-text", question, env=log.env).stdout.decode()
    begin, end = log.records()[-2:]
    equal(begin["record"]["question"], question, "the question")
    equal(end["record"]["answer"] + "\n", answer, "the answer")
    assert "JANE" not in json.dumps(log.records()) and b"Jane" not in content(log.segment())


@test
def refusals_and_failures_are_recorded():
    log = Log()
    refused_image = run("run", "-m", PHANTOM, "-i", temporary("damaged.png", b"\x89PNG\r\n\x1a\nxx"), "x", env=log.env)
    equal(refused_image.returncode, 1, "exit status")
    equal(run("run", "-m", "/nonexistent", "x", env=log.env).returncode, 1, "exit status")
    equal(run("run", "-m", PHANTOM, "--ctx", "8", "A question longer than that.", env=log.env).returncode, 1, "exit status")
    equal(run("run", "-m", PHANTOM, env=log.env, stdin=b"").returncode, 1, "exit status")
    kinds = [(r["type"], r["record"].get("outcome")) for r in log.records()[1:]]
    equal(kinds, [("note", "refused"), ("note", "refused"), ("begin", None), ("end", "refused"), ("note", "refused")],
          "records")
    for arguments in (("run", "--no-such-option"), ("run", "--help"), ("--version",)): # no use at all
        run(*arguments, env=log.env)
    equal(len(log.records()), 6, "records")


@test
def an_image_that_a_chat_refuses_is_recorded():
    log = Log()
    t = Terminal("run", "-m", PHANTOM, "-n", "4", WARD_AUDIT=log.dir, LC_ALL="C")
    t.wait(b">>> ")
    assert "absent.png" in t.type("/image absent.png\r")
    t.type("Is there an effusion?\r")
    t.send(b"\x04")
    equal(t.close(), 0, "exit status")
    equal([(r["type"], r["record"].get("outcome")) for r in log.records()[1:]],
          [("note", "refused"), ("begin", None), ("end", "length")], "records")


@test
def every_command_that_does_something_is_recorded():
    log = Log()
    def made(name):
        return os.path.join(log.home, name)
    for arguments in (("hash", SHORT), ("synth", "--preset", "tiny", made("tiny")), ("quantize", made("tiny"), made("tiny.gguf")),
                      ("bundle", "keygen", "--out", made("release"), "--no-passphrase"),
                      ("bundle", "create", made("bundle"), "--model", SHORT, "--key", made("release.key")),
                      ("bundle", "verify", made("bundle"), "--key", made("release.pub")),
                      ("bundle", "install", made("bundle"), "--key", made("release.pub"), "--prefix", made("opt"))):
        done = run(*arguments, env=log.env)
        equal(done.returncode, 0, f"exit status of {arguments} ({done.stderr!r})")
    equal(run("bundle", "verify", made("tiny"), "--key", made("release.pub"), env=log.env).returncode, 1, "exit status")
    records = log.records()[1:]
    equal([r["record"]["command"] for r in records if r["type"] == "begin"],
          ["hash", "synth", "quantize", "bundle keygen", "bundle create", "bundle verify", "bundle install",
           "bundle verify"], "commands")
    equal([r["record"]["outcome"] for r in records if r["type"] == "end"], ["done"] * 7 + ["failed"], "outcomes")


@test
def a_measurement_is_recorded_with_its_models():
    log = Log()
    sha256 = succeeds("hash", SHORT).split()[0]
    done = run("bench", "-m", SHORT, "--model-hash", sha256, "-i", "none", "-n", "2", "-r", "1", "--warmups", "0", "--no-cold", env=log.env)
    equal(done.returncode, 0, f"exit status ({done.stderr!r})")
    begin = next(r["record"] for r in log.records() if r["type"] == "begin")
    equal((begin["command"], [model["sha256"] for model in begin["models"]]), ("bench", [sha256]), "the record")
    equal(begin["models"][0]["path_sha256"], hashlib.sha256(os.path.realpath(SHORT).encode()).hexdigest(), "the hash of the path")


@test
def the_template_of_a_gguf_file_is_recorded():
    log = Log()
    folder, file = os.path.join(log.home, "tiny"), os.path.join(log.home, "tiny.gguf")
    succeeds("synth", "--preset", "tiny", folder)
    succeeds("quantize", folder, file)
    for model in (folder, file):
        equal(run("run", "-m", model, "-n", "1", "hello", env=log.env).returncode, 0, "exit status")
    hashes = [r["record"]["model"]["template_sha256"] for r in log.records() if r["type"] == "begin"]
    equal(len(hashes), 2, "answers")
    equal(hashes[0], hashes[1], "hash of the template")


@test
def an_interrupted_answer_is_recorded():
    log = Log()
    process = subprocess.Popen([WARD, "run", "-m", PHANTOM, "-n", "4000", "--ignore-eos", "--ctx", "4096", "x"],
                               env=log.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.read(process.stdout.fileno(), 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    equal(process.returncode, 130, "exit status")
    equal(log.records()[-1]["record"]["outcome"], "cancelled", "outcome")


@test
def a_closed_pipe_is_recorded():
    log = Log()
    process = subprocess.Popen([WARD, "run", "-m", PHANTOM, "-n", "2000", "--ignore-eos", "x"], env=log.env,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    process.wait(timeout=60)
    if process.returncode == 1:
        equal(log.records()[-1]["record"]["outcome"], "failed", "outcome")


@test
def an_unlocked_run_says_so():
    log = Log()
    done = run("tokenize", "-m", SHORT, "--allow-unlocked", "a", env=log.env)
    equal(done.returncode, 0, "exit status")
    assert "enforced" in log.records()[1]["record"]["offline"]


@test
def the_configured_log_is_used():
    log = Log()
    home = tempfile.mkdtemp(dir=scratch)
    os.makedirs(os.path.join(home, "ward"))
    path = os.path.join(home, "ward", "ward.conf")
    env = {**os.environ, "XDG_CONFIG_HOME": home}
    env.pop("WARD_AUDIT", None)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"# where uses are recorded\n\naudit = {log.dir}\naudit-text = yes\n")
    equal(run("run", "-m", PHANTOM, "-n", "4", "hello", env=env).returncode, 0, "exit status")
    equal(log.records()[1]["record"]["question"], "hello", "the question")
    assert "can be written to" in succeeds("audit", "status", env=env)
    for line in ("audit", "audit = ", "audit = log", "audit-text = maybe", "adit = /tmp/x", "audit = /tmp/\0x"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(line + "\n")
        refused("run", "-m", PHANTOM, "hello", words="line 1", env=env)


@test
def a_locked_program_begins_the_next_segment():
    log = Log()
    long = temporary("long.txt", b"a " * (4 << 20)) # refused, but recorded: two of them fill a segment
    for _ in range(4):
        with open(long, "rb") as question:
            done = run("run", "-m", SHORT, "--audit-text", "-", stdin=question.read(), env=log.env)
        assert b"not recorded" not in done.stderr, done.stderr
    equal(log.use().returncode, 0, "exit status")
    assert os.path.exists(log.segment(2)), os.listdir(log.dir)
    equal(os.stat(log.segment(2)).st_mode, os.stat(os.path.join(log.dir, "writer", "state")).st_mode, "mode")
    log.good()


# ---- no record, no answer ----------------------------------------------------------------------------------------------


def released(done):
    return done.stdout or done.returncode == 0


@test
def without_a_log_that_can_be_written_there_is_no_answer():
    log = Log()
    state = os.path.join(log.dir, "writer", "state")
    saved = content(state)
    for damage in (b"", saved[:100], bytes(240), saved[:-1] + bytes([saved[-1] ^ 1])):
        with open(state, "wb") as file:
            file.write(damage)
        done = log.answer()
        assert not released(done) and b"not recorded" in done.stderr, done
    os.unlink(state)
    assert not released(log.answer())
    with open(state, "wb") as file:
        file.write(saved)
    equal(log.answer().returncode, 0, "exit status once it is back")
    shutil.rmtree(log.dir)
    assert not released(log.answer())


@test
def a_read_only_disk_refuses():
    log = Log()
    log.use()
    script = f'mount --bind "{log.dir}" "{log.dir}" && mount -o remount,ro,bind "{log.dir}" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        command = ["unshare", "-rm", "sh", "-c", script, "sh"]
        if subprocess.run([*command, "true"], capture_output=True).returncode:
            raise Skip("mounting is not permitted here")
    done = subprocess.run([*command, WARD, "run", "-m", PHANTOM, "x"], env=log.env, capture_output=True)
    assert not released(done) and b"Read-only file system" in done.stderr, done
    equal(len(log.records()), 3, "records")


@test
def a_full_disk_refuses_and_loses_nothing():
    log = Log()
    sizes = range(0, 8192, 512)
    answered = 0
    for more in sizes: # every file may grow so far
        limit = os.path.getsize(log.segment()) + more
        before = len(log.records())
        done = log.answer(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        after = log.records()
        if done.stdout:
            assert after[before]["type"] == "begin", f"an answer without its record, {more} bytes free"
        if done.returncode == 0:
            answered += 1
            equal(after[-1]["type"], "end", "the last record")
        log.good()
    print(f"# {len(sizes)} disks full at another place: {answered} answered, none without its record")
    assert 0 < answered < len(sizes)


@test
def a_small_file_system_that_is_full_refuses():
    log = Log()
    place = tempfile.mkdtemp(dir=scratch)
    script = (f'mount -t tmpfs -o size=256k none "{place}" && cp -r "{log.dir}" "{place}/log" && '
              f'{{ head -c 1000000 /dev/zero > "{place}/filler" 2>/dev/null; "$@"; s=$?; '
              f'rm "{place}/filler"; "{WARD}" audit verify --log "{place}/log" --anchor {log.anchor} >&2 || s=99; exit $s; }}')
    command = ["unshare", "-m", "sh", "-c", script, "sh"]
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", place], capture_output=True).returncode:
        raise Skip("mounting is not permitted here")
    done = subprocess.run([*command, WARD, "run", "-m", PHANTOM, "x"], capture_output=True,
                          env={**os.environ, "WARD_AUDIT": place + "/log"})
    equal(done.returncode, 1, f"exit status ({done.stderr!r})")
    assert not done.stdout and b"No space left" in done.stderr, done


@test
def killed_at_any_moment_no_answer_is_without_its_record():
    log = Log()
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    shown = ended = 0
    start = time.monotonic()
    log.answer()
    whole = time.monotonic() - start
    for _ in range(KILLS):
        before = len(log.records())
        process = subprocess.Popen([WARD, "run", "-m", PHANTOM, "-i", FILM, QUESTION], env=log.env,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, 1.2 * whole))
        process.kill()
        out, _ = process.communicate()
        log.use() # mends what is left
        after = log.records()
        new = [r["type"] for r in after[before:-2]]
        if out:
            shown += 1
            assert "begin" in new, f"seed {seed}: {out!r} was shown, recorded is {new}"
        if process.returncode == 0:
            ended += 1
            assert new[-1] == "end", f"seed {seed}: it ended, recorded is {new}"
        log.good()
    print(f"# {KILLS} kills: {shown} after something was shown, {ended} after the end; seed {seed}")


@test
def many_processes_write_at_once():
    log = Log()
    n = 8 if QUICK else 24
    processes = [subprocess.Popen([WARD, "tokenize", "-m", SHORT, "a"], env=log.env, stdout=subprocess.DEVNULL)
                 for _ in range(n)]
    rotations = [run("audit", "rotate", "--log", log.dir).returncode for _ in range(3)]
    equal([p.wait() for p in processes] + rotations, [0] * (n + 3), "exit statuses")
    summary = json.loads(log.good("--json"))
    equal((summary["uses"], summary["uses_without_end"], summary["segments"]), (n, 0, 4), "uses")
    equal(len(log.records()), 1 + 2 * n + 2 * 3, "records")


# ---- attacks -----------------------------------------------------------------------------------------------------------


@test
def flipped_bits_are_seen():
    log = Log()
    log.use()
    data = bytearray(content(log.segment()))
    places = random.sample(range(8 * len(data)), 20 if QUICK else 40)
    for place in places:
        data[place // 8] ^= 1 << place % 8
        with open(log.segment(), "wb") as file:
            file.write(data)
        log.bad("00000001.log")
        data[place // 8] ^= 1 << place % 8
    print(f"# {len(places)} of {8 * len(data)} bits (the unit test flips each), each seen")


@test
def truncation_is_seen_with_a_later_checkpoint():
    log = Log()
    log.use()
    log.use()
    checkpoint = temporary("checkpoint.txt", run("audit", "checkpoint", "--log", log.dir).stdout)
    assert "holds all" in log.good("--checkpoint", checkpoint)
    bare = os.path.join(log.home, "bare") # as an auditor gets it: without the writer's state
    os.mkdir(bare)
    data = content(log.segment())
    unseen = 0
    steps = sorted({*range(0, len(data), 61 if QUICK else 17), *frames_of(data)})
    for size in steps:
        with open(os.path.join(bare, "00000001.log"), "wb") as file:
            file.write(data[:size])
        alone = run("audit", "verify", "--log", bare, "--anchor", log.anchor)
        unseen += alone.returncode == 0
        if alone.returncode == 0:
            assert size in frames_of(data) and b"only with a later checkpoint" in alone.stdout, (size, alone)
        refused("audit", "verify", "--log", bare, "--anchor", log.anchor, "--checkpoint", checkpoint)
        if size: # with the state beside it, too
            with open(log.segment(), "wb") as file:
                file.write(data[:size])
            log.bad("")
    with open(log.segment(), "wb") as file:
        file.write(data)
    log.use()
    log.good("--checkpoint", checkpoint)
    equal(unseen, len(frames_of(data)), "cuts that only a checkpoint shows")
    print(f"# {len(steps)} cuts: {unseen} at the end of a record, seen with a checkpoint alone")


def frames_of(data):
    """Where records end, all but the last."""
    ends, at = [], 8
    while at < len(data):
        at += 224 + int.from_bytes(data[at + 4:at + 8], "little")
        ends.append(at)
    return ends[:-1]


@test
def another_log_and_an_older_one_are_seen():
    log, other = Log(), Log()
    log.use()
    snapshot = os.path.join(log.home, "snapshot")
    shutil.copytree(log.dir, snapshot)
    log.use()
    checkpoint = temporary("later.txt", run("audit", "checkpoint", "--log", log.dir).stdout)
    other.use()
    shutil.rmtree(log.dir)
    shutil.copytree(other.dir, log.dir)
    log.bad("anchor")
    assert "self-consistent only" in succeeds("audit", "verify", "--log", log.dir)
    refused("audit", "verify", "--log", log.dir, "--checkpoint", checkpoint, words="is of the log")
    shutil.rmtree(log.dir)
    shutil.copytree(snapshot, log.dir)
    log.good() # rolled back with its writer: undetectable...
    log.bad("the last are missing", "--checkpoint", checkpoint) # ...but for a later checkpoint
    log.use()
    log.use()
    log.bad("not those", "--checkpoint", checkpoint)


@test
def a_clock_set_back_is_seen():
    log = Log()
    log.use()
    source = temporary("clock.c", b"""
        #define _GNU_SOURCE
        #include <time.h>
        #include <unistd.h>
        #include <sys/syscall.h>
        int clock_gettime(clockid_t id, struct timespec *t)
        {
            const int rc = (int)syscall(SYS_clock_gettime, id, t);
            t->tv_sec -= id == CLOCK_REALTIME ? 3600 : 0;
            return rc;
        }""")
    shim = os.path.join(scratch, "clock.so")
    if QUICK:
        raise Skip("a sanitizer comes before any library that is loaded first")
    if not shutil.which("cc") or subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source]).returncode:
        raise Skip("there is no compiler")
    equal(run("tokenize", "-m", SHORT, "a", env={**log.env, "LD_PRELOAD": shim}).returncode, 0, "exit status")
    log.bad("set back by 3")
    assert "set back 1 times" in log.good("--allow-clock-steps")
    log.use() # forward again
    assert "set forward 1 times" in log.good("--allow-clock-steps")


# ---- keys --------------------------------------------------------------------------------------------------------------


@test
def only_the_auditor_reads():
    log, other = Log(), Log()
    log.use()
    done = run("audit", "show", "--log", log.dir, "--key", other.key, "--anchor", log.anchor)
    assert done.returncode == 1 and b"opens none" in done.stderr and b"tokenize" not in done.stdout, done
    refused("audit", "show", "--log", log.dir, "--key", other.key, words="anchor")
    refused("audit", "show", "--log", log.dir, "--key", log.segment())
    misused("audit", "show", "--log", log.dir, words="--key")
    for path, _, names in os.walk(log.dir): # nothing of the auditor's secret is there
        for name in names:
            data = content(os.path.join(path, name))
            secret = json.loads(content(log.key))["secret"]
            assert bytes.fromhex(secret) not in data and secret.encode() not in data, name


@test
def a_passphrase_locks_the_key_file():
    home = tempfile.mkdtemp(dir=scratch)
    log, key = os.path.join(home, "log"), os.path.join(home, "key")
    alone = {"start_new_session": True} # no terminal: the passphrase is read from standard input
    made = run("audit", "init", "--log", log, "--out", key, stdin=b"one two\none two\n", **alone)
    equal(made.returncode, 0, f"exit status of init ({made.stderr!r})")
    equal(os.stat(key).st_mode & 0o777, 0o600, "mode of the key file")
    equal(json.loads(content(key))["kdf"], "argon2id13", "kdf")
    run("tokenize", "-m", SHORT, "a", env={**os.environ, "WARD_AUDIT": log})
    shown = run("audit", "show", "--log", log, "--key", key, stdin=b"one two\n", **alone)
    assert shown.returncode == 0 and b"tokenize" in shown.stdout, shown
    wrong = run("audit", "show", "--log", log, "--key", key, stdin=b"three\n", **alone)
    assert wrong.returncode == 1 and b"passphrase does not open" in wrong.stderr, wrong
    differ = run("audit", "init", "--log", log + "2", "--out", key + "2", stdin=b"one\ntwo\n", **alone)
    assert differ.returncode == 1 and not os.path.exists(key + "2") and not os.path.exists(log + "2"), differ
    reader = subprocess.run([sys.executable, READER, "show", log, "--key", key], input=b"one two\n", capture_output=True)
    assert reader.returncode == 0 and b"tokenize" in reader.stdout, reader


@test
def auditors_come_and_go():
    log = Log()
    log.use()
    second, third = os.path.join(log.home, "second.key"), os.path.join(log.home, "third.key")
    public = succeeds("audit", "keygen", "--out", second, "--no-passphrase").split()[1]
    succeeds("audit", "rekey", "--log", log.dir, "--keep", "--auditor", public)
    log.use()
    succeeds("audit", "rekey", "--log", log.dir, "--out", third, "--no-passphrase")
    log.use()
    log.good()
    reads = {name: [r["record"] is not None for r in log.records(key) if r["type"] == "begin"]
             for name, key in (("first", log.key), ("second", second), ("third", third))}
    equal(reads, {"first": [True, True, False], "second": [False, True, False], "third": [False, False, True]}, "who reads")
    equal(len(json.loads(log.good("--json"))["auditors"]), 1, "auditors")
    both = Log("--out", os.path.join(log.home, "recovery.key"))
    both.use()
    equal(both.records(), both.records(os.path.join(log.home, "recovery.key")), "what both read")
    shown = run("audit", "init", "--log", os.path.join(log.home, "shown"), "--out", "-", "--no-passphrase")
    equal(json.loads(shown.stdout.splitlines()[0])["kdf"], "none", "the key that is shown once")


@test
def nothing_is_overwritten():
    log = Log()
    refused("audit", "init", "--log", log.dir, "--out", log.key + "2", "--no-passphrase", words="holds an audit log")
    assert not os.path.exists(log.key + "2")
    refused("audit", "init", "--log", log.dir + "2", "--out", log.key, "--no-passphrase", words="exists")
    misused("audit", "init", "--log", log.dir + "2", words="who can read")
    misused("audit", "tidy", words="tidy")


# ---- keeping and reading -----------------------------------------------------------------------------------------------


@test
def content_that_is_old_is_removed_and_all_still_proven():
    log = Log()
    log.answer("--audit-text")
    succeeds("audit", "rotate", "--log", log.dir)
    checkpoint = temporary("before.txt", run("audit", "checkpoint", "--log", log.dir).stdout)
    succeeds("audit", "prune", "--log", log.dir, "--older-than", "1")
    equal(log.records()[1]["record"]["question"], QUESTION, "what is young stays")
    time.sleep(1.1)
    size = os.path.getsize(log.segment())
    succeeds("audit", "prune", "--log", log.dir, "--older-than", "0")
    assert os.path.getsize(log.segment()) < size - 1000, "the segment is as long as before"
    log.good("--checkpoint", checkpoint)
    assert all(r["record"] is None for r in log.records() if r["type"] in ("begin", "end"))
    log.use()
    log.good("--checkpoint", checkpoint)


@test
def searching_finds():
    log = Log()
    log.answer("--user", "alice", "--study", "1.2.3", "--audit-text")
    log.answer("--user", "bob")
    log.use()

    def count(*filters):
        text = succeeds("audit", "search", "--log", log.dir, "--key", log.key, "--json", *filters)
        return sum(json.loads(line)["type"] in ("begin", "note") for line in text.splitlines())

    for filters, n in (((), 3), (("--user", "alice"), 1), (("--user", "carol"), 0), (("--command", "run"), 2),
                       (("--outcome", "stop"), 2), (("--outcome", "none"), 0), (("--study", "1.2.3"), 1), (("--study", "1.2"), 0),
                       (("--hash", sha256(content(FILM))), 2), (("--hash", sha256(b"")), 0), (("OPACITY",), 1),
                       (("--since", "2020-01-01"), 3), (("--since", "2999-01-01"), 0), (("--until", "2020-01-01T00:00:00Z"), 0)):
        equal(count(*filters), n, f"uses found with {filters}")
    misused("audit", "search", "--log", log.dir, "--key", log.key, "--since", "yesterday", words="2026-01-31")


def some_of_everything():
    log = Log()
    log.answer("--user", 'Dr. "<&> H\u00e4user', "--study", "1.2.3", "--series", "1.2.3.4", "--instance", "1.2.3.4.5")
    run("run", "-m", "/nonexistent", "x", env=log.env)
    process = subprocess.Popen([WARD, "run", "-m", PHANTOM, "-n", "4000", "--ignore-eos", "--ctx", "4096", "x"],
                               env=log.env, stdout=subprocess.PIPE)
    os.read(process.stdout.fileno(), 1)
    process.kill()
    process.communicate()
    log.use()
    return log


@test
def fhir_audit_events_are_as_r4_has_them():
    log = some_of_everything()
    bundle = json.loads(succeeds("audit", "export", "--log", log.dir, "--key", log.key, "--format", "fhir"))
    equal((bundle["resourceType"], bundle["type"], len(bundle["entry"])), ("Bundle", "collection", 4), "the bundle")
    events = [entry["resource"] for entry in bundle["entry"]]
    equal(sorted(event["outcome"] for event in events), ["0", "0", "4", "8"], "outcomes")
    instant = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    known = {"resourceType", "type", "subtype", "action", "period", "recorded", "outcome", "outcomeDesc", "agent", "source", "entity"}
    for event in events: # cardinalities and types of https://hl7.org/fhir/R4/auditevent.html
        assert set(event) <= known and instant.fullmatch(event["recorded"]) and event["agent"], event
        assert event["action"] == "E" and event["source"]["observer"]["identifier"]["value"], event
        assert all(isinstance(agent["requestor"], bool) for agent in event["agent"]), event
        assert sum(agent["requestor"] for agent in event["agent"]) == 1, event
        assert all(entity["what"]["identifier"]["value"] for entity in event.get("entity", [])), event
    whole = next(event for event in events if "urn:dicom:uid" in json.dumps(event))
    equal(whole["agent"][0]["who"]["identifier"]["value"], 'Dr. "<&> H\u00e4user', "the user")
    try:
        from fhir.resources.R4B.bundle import Bundle
    except ImportError:
        print("# fhir.resources is not installed: the events were not held against its schema")
        return
    Bundle.model_validate(bundle)
    print("# 4 events held against the schema of fhir.resources")


CODED = {"csd-code", "codeSystemName", "originalText"}
SCHEMA = { # PS3.15 A.5.1.1: element -> (attributes that must be, that may be, children in order with "?", "*", "+")
    "AuditMessage": (set(), set(), ["EventIdentification", "ActiveParticipant+", "AuditSourceIdentification",
                                    "ParticipantObjectIdentification*"]),
    "EventIdentification": ({"EventDateTime", "EventOutcomeIndicator"}, {"EventActionCode"},
                            ["EventID", "EventTypeCode*", "EventOutcomeDescription?"]),
    "EventID": (CODED, {"displayName"}, []), "EventTypeCode": (CODED, {"displayName"}, []),
    "EventOutcomeDescription": (set(), set(), []),
    "ActiveParticipant": ({"UserID", "UserIsRequestor"},
                          {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
                          ["RoleIDCode*", "MediaIdentifier?"]),
    "RoleIDCode": (CODED, {"displayName"}, []),
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, ["AuditSourceTypeCode*"]),
    "AuditSourceTypeCode": ({"csd-code"}, CODED, []),
    "ParticipantObjectIdentification": ({"ParticipantObjectID"},
                                        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole",
                                         "ParticipantObjectDataLifeCycle", "ParticipantObjectSensitivity"},
                                        ["ParticipantObjectIDTypeCode", "ParticipantObjectName", "ParticipantObjectDetail*",
                                         "ParticipantObjectDescription*", "SOPClass?"]),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, ["Instance*"]), "Instance": ({"UID"}, set(), []),
    "ParticipantObjectIDTypeCode": (CODED, {"displayName"}, []), "ParticipantObjectName": (set(), set(), []),
    "ParticipantObjectDetail": ({"type", "value"}, set(), []),
}
VALUES = {"EventActionCode": "[CRUDE]", "EventOutcomeIndicator": "0|4|8|12", "UserIsRequestor": "true|false",
          "NetworkAccessPointTypeCode": "[1-5]", "ParticipantObjectTypeCode": "[1-4]",
          "ParticipantObjectTypeCodeRole": "[1-9]|1[0-9]|2[0-6]", "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
          "value": "[A-Za-z0-9+/]+=*"}


def check_element(element):
    must, may, children = SCHEMA[element.tag]
    assert must <= set(element.attrib) <= must | may, f"{element.tag} has {sorted(element.attrib)}"
    for name, value in element.attrib.items():
        assert re.fullmatch(VALUES.get(name, "(?s).*"), value), f"{element.tag}/@{name} is {value}"
    order = "".join(child.tag + " " for child in element)
    pattern = "".join(f"({child.rstrip('?*+')} ){child[len(child.rstrip('?*+')):]}" for child in children)
    assert re.fullmatch(pattern, order), f"{element.tag} holds {order}"
    for child in element:
        check_element(child)


@test
def dicom_audit_messages_are_as_the_schema_has_them():
    log = some_of_everything()
    log.answer("--instance", "1.2.3.9")
    lines = succeeds("audit", "export", "--log", log.dir, "--key", log.key, "--format", "atna").splitlines()
    equal(len(lines), 5, "messages")
    objects = []
    for line in lines:
        message = xml.fromstring(line)
        equal(message.tag, "AuditMessage", "root")
        check_element(message)
        objects += message.iter("ParticipantObjectIdentification")
    by_code = {o.find("ParticipantObjectIDTypeCode").get("csd-code"): o for o in objects}
    equal({code: o.get("ParticipantObjectID") for code, o in by_code.items() if code != "sha256"},
          {"110180": "1.2.3", "112002": "1.2.3.4", "sop-instance-uid": "1.2.3.9"}, "identifiers")
    equal([i.get("UID") for i in by_code["110180"].iter("Instance")], ["1.2.3.4.5"], "the study's instances")
    assert 'UserID="Dr. &quot;&lt;&amp;&gt; H\u00e4user"' in "".join(lines)


@test
def a_reader_written_from_the_document_agrees():
    log = some_of_everything()
    succeeds("audit", "rekey", "--log", log.dir, "--keep", "--out", os.path.join(log.home, "new.key"), "--no-passphrase")
    log.answer("--audit-text")
    with open(log.segment(2), "ab") as file:
        file.write(b"what a power cut left")
    log.use()
    checkpoint = temporary("agreed.txt", run("audit", "checkpoint", "--log", log.dir).stdout)

    def read(*arguments, expect=0):
        done = subprocess.run([sys.executable, READER, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        equal(done.returncode, expect, f"exit status of {arguments} ({done.stderr})")
        return done.stdout

    try:
        read("verify", log.dir)
    except AssertionError as problem:
        if "libsodium" in str(problem) or "nacl" in str(problem):
            raise Skip("there is neither PyNaCl nor libsodium for Python") from None
        raise
    for key in (log.key, os.path.join(log.home, "new.key")):
        equal([json.loads(line) for line in read("show", log.dir, "--key", key).splitlines()], log.records(key), "records")
    assert any(r["type"] == "recovery" and r["record"]["cut"] == 21 for r in log.records())
    summary = json.loads(read("verify", log.dir, "--anchor", log.anchor, "--checkpoint", checkpoint))
    ours = json.loads(log.good("--json", "--checkpoint", checkpoint))
    for name in ("records", "uses_without_end", "pruned_segments", "anchor"):
        equal(summary[name], ours[name], name)
    time.sleep(1.1)
    succeeds("audit", "prune", "--log", log.dir, "--older-than", "0")
    equal([json.loads(line) for line in read("show", log.dir, "--key", log.key).splitlines()], log.records(), "pruned records")
    rng = random.Random(1)
    for number in (1, 2): # and on what is wrong
        data = bytearray(content(log.segment(number)))
        for _ in range(5 if QUICK else 20):
            place = rng.randrange(8 * len(data))
            data[place // 8] ^= 1 << place % 8
            with open(log.segment(number), "wb") as file:
                file.write(data)
            read("verify", log.dir, expect=1)
            log.bad(".log")
            data[place // 8] ^= 1 << place % 8
        with open(log.segment(number), "wb") as file:
            file.write(data)
    read("verify", log.dir, "--anchor", Log().anchor, expect=1)
    read("verify", log.dir, "--anchor", log.anchor, "--checkpoint", checkpoint)


if __name__ == "__main__":
    sys.exit(run_tests())
