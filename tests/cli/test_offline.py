#!/usr/bin/env python3
"""The lock, from outside: test_offline.py WARD. Prints TAP.

tests/offline/escape.c, preloaded, tries to get out of every command at its end. A kernel without Landlock or seccomp is
played by a filter that makes their system calls fail.
"""

import ctypes
import json
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile

from harness import (MODELS, PHANTOM, ROOT, WARD, Skip, Terminal, answer, equal, misused, png, refused, run, run_tests, scratch,
                     succeeds, temporary, test)

SEES = os.path.join(MODELS, "hybrid")
QUESTION = "Describe this X-ray."
SHORT = ["-n", "4", "--ignore-eos"]
SANITIZED = os.path.basename(os.path.dirname(WARD)) in ("asan", "tsan")
ESCAPE = os.path.join(os.path.dirname(WARD), "tests", "escape.so")
IMAGE = temporary("film.png", png(56, 56, lambda x, y: (x * y) % 256))
SECRET = temporary("secret", b"of another patient")
OUTSIDE = os.path.join(tempfile.mkdtemp(dir=scratch), "outside")
ENFORCED = {"enforced": True, "seccomp": True}

REFUSALS = {
    "socket": "EPERM", "socketpair": "EPERM", "sendto": "EPERM", "fork": "EPERM", "exec": "EPERM", "ptrace": "EPERM",
    "kill": "ENOSYS", "io_uring": "EPERM", "code": "EACCES", "write": "EACCES", "empty": "ENOSYS", "read": "EACCES",
    "inherited": "EBADF", "type": "ENOSYS", "core": "EPERM", "thread_socket": "EPERM",
}


# ---- tools -------------------------------------------------------------------------------------------------------------

def needs_lock():
    state = json.loads(run("offline", "--json").stdout)
    if not state["seccomp"] or not state["landlock"]:
        raise Skip(f"this kernel cannot lock: {state['missing']}")


def escape_environment(**more):
    if SANITIZED:
        raise Skip("nothing can be preloaded before a sanitizer")
    return {**os.environ, "LD_PRELOAD": ESCAPE, "ESCAPE_READ": SECRET, "ESCAPE_WRITE": OUTSIDE, **more}


def report_in(text):
    found = re.findall(r"escape: (.*)", text)
    assert found, f"nothing tried to get out: {text!r}"
    return dict(pair.split("=") for pair in found[-1].split())


def without(*calls):
    """A preexec_fn: these (number, first argument or None) fail with ENOSYS, as on a kernel that lacks them."""
    program = []
    for number, argument in calls:
        program.append(struct.pack("HBBI", 0x20, 0, 0, 0)) # the number of the call
        program.append(struct.pack("HBBI", 0x15, 0, 1 if argument is None else 3, number))
        if argument is not None:
            program.append(struct.pack("HBBI", 0x20, 0, 0, 16))
            program.append(struct.pack("HBBI", 0x15, 0, 1, argument))
        program.append(struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | 38)) # ENOSYS
    program.append(struct.pack("HBBI", 0x06, 0, 0, 0x7fff0000)) # allow
    code = ctypes.create_string_buffer(b"".join(program))
    libc = ctypes.CDLL(None, use_errno=True)

    def apply():
        head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(head)), 0, 0):
            raise OSError(ctypes.get_errno(), "no filter of system calls")
    return apply


NO_LANDLOCK = without((444, None))
NO_SECCOMP = without((317 if platform.machine() == "x86_64" else 277, None), ({"x86_64": 157}.get(platform.machine(), 167), 22))


# ---- every command -----------------------------------------------------------------------------------------------------

def commands():
    """Arguments for every command that `ward --help` lists; each at least once, with all that it opens."""
    listed = re.findall(r"^  ([a-z]+) +\S", succeeds("--help").split("commands:")[1].split("\n'ward")[0], re.MULTILINE)
    out = tempfile.mkdtemp(dir=scratch)
    messages = temporary("messages.json", json.dumps(
        [{"role": "user", "content": [{"type": "image", "path": IMAGE}, {"type": "text", "text": QUESTION}]}]).encode())
    pin = succeeds("hash", SEES).split()[0]
    log, auditor = os.path.join(out, "log"), os.path.join(out, "auditor.key")
    succeeds("audit", "init", "--log", log, "--out", auditor, "--no-passphrase")
    succeeds("tokenize", "-m", SEES, QUESTION, env={**os.environ, "WARD_AUDIT": log})
    checkpoint = temporary("checkpoint.txt", succeeds("audit", "checkpoint", "--log", log).encode())
    with_key = ["--log", log, "--key", auditor]
    known = {
        "run": [["run", "-m", SEES, "-i", IMAGE, *SHORT, QUESTION], ["run", "-m", SEES, "--messages", messages, *SHORT, "--json"],
                ["run", "-m", SEES, "-i", IMAGE, "--model-hash", pin, *SHORT, QUESTION]],
        "tokenize": [["tokenize", "-m", SEES, QUESTION]],
        "preprocess": [["preprocess", "-m", SEES, "-i", IMAGE, "--out", os.path.join(out, "seen.ppm")]],
        "quantize": [["quantize", SEES, os.path.join(out, "small.gguf"), "--type", "q8_0", "--model-hash", pin]],
        "hash": [["hash", SEES]],
        "synth": [["synth", "--preset", "tiny", os.path.join(out, "random")]],
        "bench": [["bench", "-m", SEES, "-i", IMAGE, "-n", "2", "-r", "1", "--warmups", "0", "--no-cold"]],
        "doctor": [["doctor", "-m", SEES]],
        "bundle": [["bundle", "keygen", "--no-passphrase", "--out", os.path.join(out, "keys")],
                   ["bundle", "create", os.path.join(out, "bundle"), "--model", SEES, "--key", os.path.join(out, "keys.key")]],
        "audit": [["audit", "verify", "--log", log, "--checkpoint", checkpoint], ["audit", "show", *with_key],
                  ["audit", "search", *with_key, "--command", "tokenize"], ["audit", "export", *with_key, "--format", "fhir"],
                  ["audit", "status", "--log", log], ["audit", "checkpoint", "--log", log],
                  ["audit", "rekey", "--log", log, "--out", os.path.join(out, "new.key"), "--no-passphrase"],
                  ["audit", "rotate", "--log", log], ["audit", "prune", "--log", log, "--older-than", "1"]],
        "offline": [], # nor does this; its attempts are the lock's own
    }
    unknown = set(listed) - set(known)
    assert not unknown, f"nobody tries to get out of {unknown}: put them into commands()"
    return [arguments for name in listed for arguments in known[name]]


def ended_well(arguments, done):
    """ward doctor ends with 1 where a machine will not do."""
    assert done.returncode in ((0, 1) if arguments[0] == "doctor" else (0,)), f"{arguments} ended with {done.returncode}: {done.stderr!r}"


@test
def every_command_is_locked():
    needs_lock()
    ours, theirs = socket.socketpair()
    os.dup2(theirs.fileno(), 99)
    for arguments in commands():
        done = run(*arguments, env=escape_environment(ESCAPE_FD="99"), pass_fds=[99])
        ended_well(arguments, done)
        equal(report_in(done.stderr.decode()), REFUSALS, f"what {arguments[0]} was refused")
        assert not os.path.exists(OUTSIDE), f"{arguments[0]} wrote outside"
    os.close(99)
    ours.close()
    theirs.close()
    equal(open(SECRET, "rb").read(), b"of another patient", "a file outside")


@test
def a_chat_may_read_but_neither_write_nor_send():
    needs_lock()
    t = Terminal("run", "-m", SEES, *SHORT, **escape_environment(ESCAPE_FD="99"))
    t.wait(b">>> ")
    t.type(f"/image {IMAGE}\r")
    t.type("What is it?\r")
    t.send(b"\x04")
    report = report_in(t.wait(b"thread_socket=EPERM"))
    equal(report, {**REFUSALS, "read": "allowed"}, "what a chat was refused")
    t.close()


@test
def the_lock_comes_first():
    """Before anything of the model, the image or the conversation is opened; and no call of the network is made at all."""
    needs_lock()
    if not shutil.which("strace") or subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], stderr=subprocess.DEVNULL).returncode:
        raise Skip("tracing is not permitted here, or there is no strace")
    if SANITIZED:
        raise Skip("leaks are not found under strace")
    for arguments in commands():
        trace = temporary("trace")
        done = subprocess.run(["strace", "-f", "-e", "trace=openat,open,seccomp,landlock_restrict_self,%network,execve,fork,vfork",
                               "-o", trace, WARD, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
        ended_well(arguments, done)
        with open(trace, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        locked = next(i for i, line in enumerate(lines) if "SECCOMP_SET_MODE_FILTER" in line and "len=" in line)
        assert any("landlock_restrict_self" in line for line in lines[:locked]), f"{arguments[0]}: seccomp before Landlock"
        opened = [line for line in lines[1:locked] if re.search(f'"({re.escape(SEES)}|{re.escape(scratch)}/[a-z]*\\.(png|json)")', line)
                  and "O_PATH" not in line and "O_DIRECTORY" not in line]
        assert not opened, f"{arguments[0]} opened before the lock: {opened}"
        expected = r"\d+ +(openat|open|seccomp|landlock_restrict_self)\(|\d+ +<\.\.\.|\d+ +(\+\+\+|---)"
        others = [line for line in lines[1:] if not re.match(expected, line)] # the first starts ward
        assert not others, f"{arguments[0]} made calls of the network or started programs: {others}"


@test
def messages_narrow_what_may_be_read():
    needs_lock()
    messages = temporary("narrow.json", json.dumps([{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"file://{IMAGE}"}}, {"type": "text", "text": QUESTION}]}]).encode())
    done = run("run", "-m", SEES, "--messages", messages, *SHORT, env=escape_environment(ESCAPE_READ=messages, ESCAPE_FD="99"))
    equal(report_in(done.stderr.decode())["read"], "EACCES", "the conversation's file, once it is read")


# ---- what has to work all the same -------------------------------------------------------------------------------------

@test
def links_of_the_hugging_face_cache_are_followed():
    home = tempfile.mkdtemp(dir=scratch)
    elsewhere = tempfile.mkdtemp(dir=scratch) # a cache whose blobs were moved to another disk
    repository = os.path.join(home, "hub", "models--org--name")
    snapshot = os.path.join(repository, "snapshots", "0123")
    os.makedirs(snapshot)
    os.makedirs(os.path.join(repository, "refs"))
    with open(os.path.join(repository, "refs", "main"), "w", encoding="utf-8") as file:
        file.write("0123")
    os.symlink(elsewhere, os.path.join(repository, "blobs"))
    for number, name in enumerate(os.listdir(SEES)):
        if name != "golden.json":
            shutil.copy(os.path.join(SEES, name), os.path.join(elsewhere, str(number)))
            os.symlink(f"../../blobs/{number}", os.path.join(snapshot, name))
    environment = {**os.environ, "HF_HOME": home}
    expected = answer("-m", SEES, "-i", IMAGE, *SHORT, QUESTION)["ids"]
    for name in ("org/name", snapshot, os.path.relpath(snapshot)):
        equal(answer("-m", name, "-i", IMAGE, *SHORT, QUESTION, env=environment)["ids"], expected, name)
        succeeds("tokenize", "-m", name, QUESTION, env=environment)


@test
def gguf_files_are_found_with_their_encoder():
    folder = tempfile.mkdtemp(dir=scratch)
    succeeds("quantize", SEES, "a.gguf", "--type", "q8_0", cwd=folder)
    expected = answer("-m", "a.gguf", "-i", IMAGE, *SHORT, QUESTION, cwd=folder)["ids"]
    link = os.path.join(scratch, "link.gguf")
    os.symlink(os.path.join(folder, "a.gguf"), link)
    for arguments in (["-m", folder], ["-m", os.path.join(folder, "a.gguf")],
                      ["-m", link, "--mmproj", os.path.join(folder, "mmproj-a.gguf")]):
        equal(answer(*arguments, "-i", IMAGE, *SHORT, QUESTION)["ids"], expected, str(arguments))


@test
def descriptors_that_are_named_stay_open():
    expected = answer("-m", SEES, "-i", IMAGE, *SHORT, QUESTION)["ids"]
    with open(IMAGE, "rb") as file:
        done = subprocess.run([WARD, "run", "-m", SEES, "-i", "/dev/stdin", *SHORT, "--json", QUESTION], stdin=file,
                              capture_output=True, timeout=120, check=False)
        equal(done.returncode, 0, f"/dev/stdin ({done.stderr!r})")
        equal(json.loads(done.stdout)["ids"], expected, "/dev/stdin")
        equal(answer("-m", SEES, "-i", f"/dev/fd/{file.fileno()}", *SHORT, QUESTION, pass_fds=[file.fileno()])["ids"], expected,
              "/dev/fd/N")


@test
def outputs_go_where_they_were_asked_to():
    folder = tempfile.mkdtemp(dir=scratch)
    expected = run("preprocess", "-m", SEES, "-i", IMAGE, "--out", "-", "--size", "8").stdout
    assert expected.startswith(b"P6")
    succeeds("preprocess", "-m", SEES, "-i", IMAGE, "--out", "seen.ppm", "--size", "8", cwd=folder)
    with open(os.path.join(folder, "seen.ppm"), "rb") as file:
        equal(file.read(), expected, "to a file")
    equal(run("preprocess", "-m", SEES, "-i", IMAGE, "--out", "/dev/stdout", "--size", "8").stdout, expected, "to a pipe by its name")
    succeeds("preprocess", "-m", SEES, "-i", IMAGE, "--out", "/dev/null", "--size", "8")
    refused("preprocess", "-m", SEES, "-i", IMAGE, "--out", "/dev/full", "--size", "8", words="/dev/full")
    refused("preprocess", "-m", SEES, "-i", IMAGE, "--out", os.path.join(folder, "absent", "x.ppm"), words="No such file")


@test
def standard_streams_may_be_sockets():
    """As a super-server starts a program: reading and writing go on, every call of the network is refused."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([WARD, "run", "-m", SEES, "-i", IMAGE, *SHORT, "-"], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
    theirs.close()
    ours.sendall(QUESTION.encode())
    ours.shutdown(socket.SHUT_WR)
    text = b"".join(iter(lambda: ours.recv(4096), b""))
    process.communicate(timeout=120)
    equal(process.returncode, 0, "exit status")
    equal(text.decode(), succeeds("run", "-m", SEES, "-i", IMAGE, *SHORT, QUESTION), "the answer")


# ---- kernels that cannot -----------------------------------------------------------------------------------------------

def offline_of(*args, **more):
    done = run("run", "-m", SEES, *SHORT, "--json", *args, QUESTION, **more)
    equal(done.returncode, 0, f"exit status ({done.stderr!r})")
    return json.loads(done.stdout)["offline"], done.stderr.decode()


@test
def a_kernel_without_landlock_is_refused():
    needs_lock()
    for arguments in (["run", "-m", SEES, QUESTION], ["tokenize", "-m", SEES, QUESTION],
                      ["preprocess", "-m", SEES, "-i", IMAGE, "--out", "-"], ["quantize", SEES, os.path.join(scratch, "never.gguf")]):
        refused(*arguments, words="Landlock", preexec_fn=NO_LANDLOCK)
    state, warning = offline_of("--allow-unlocked", preexec_fn=NO_LANDLOCK)
    equal({k: state[k] for k in ("enforced", "seccomp", "landlock")}, {"enforced": False, "seccomp": True, "landlock": 0}, "state")
    assert "Landlock" in state["missing"] and "Landlock" in warning and "warning" in warning, (state, warning)
    proof = run("offline", "--json", preexec_fn=NO_LANDLOCK)
    equal(proof.returncode, 1, "exit status of a proof that fails")
    proof = json.loads(proof.stdout)
    locked = {probe["name"]: probe["locked"] for probe in proof["probes"]}
    equal((proof["enforced"], locked["tcp_connect"], locked["write_outside"]), (False, "denied", "allowed"), "without Landlock")


@test
def a_kernel_without_seccomp_is_refused():
    needs_lock()
    refused("run", "-m", SEES, QUESTION, words="seccomp", preexec_fn=NO_SECCOMP)
    state, warning = offline_of("--allow-unlocked", preexec_fn=NO_SECCOMP)
    equal((state["enforced"], state["seccomp"]), (False, False), "state")
    assert "seccomp" in warning, warning


@test
def json_says_that_the_lock_holds():
    needs_lock()
    for more in ([], ["--allow-unlocked"]): # what can be enforced is
        state, warning = offline_of(*more)
        equal({k: state[k] for k in ENFORCED}, ENFORCED, "state")
        equal((state["missing"], warning), (None, ""), "what is missing")
    assert state["landlock"] >= 1


# ---- the proof ---------------------------------------------------------------------------------------------------------

@test
def the_proof_holds():
    needs_lock()
    if SANITIZED:
        raise Skip("a build with a sanitizer may start processes, to look for leaks")
    done = run("offline", "--json")
    proof = json.loads(done.stdout)
    equal((done.returncode, proof["enforced"], proof["kernel"]), (0, True, os.uname().release), f"the proof ({done.stderr!r})")
    probes = {probe["name"]: probe for probe in proof["probes"]}
    for name in ("tcp_connect", "udp_send", "dns_query", "unix_socket", "exec", "write_outside"):
        equal((probes[name]["locked"], probes[name]["unlocked"]), ("denied", "allowed"), name)
    for probe in proof["probes"]:
        assert probe["locked"] == "denied" and probe["errno"] > 0 and probe["error"].startswith("E"), probe
    table = succeeds("offline")
    equal(len(re.findall(r"^\S.* E[A-Z]+ +allowed$", table, re.MULTILINE)), len(proof["probes"]), "rows of the table")
    misused("offline", "now", words="now")


@test
def a_proof_without_listeners_is_void():
    needs_lock()
    if SANITIZED:
        raise Skip("a build with a sanitizer may start processes, to look for leaks")
    done = run("offline", "--json", preexec_fn=without((41 if platform.machine() == "x86_64" else 198, None)))
    proof = json.loads(done.stdout)
    equal((done.returncode, proof["enforced"]), (1, False), "a machine on which nothing can be sent anyway")
    assert b"nothing is proven" in done.stderr, done.stderr


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.exit(run_tests())
