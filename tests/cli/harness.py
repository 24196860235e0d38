"""What the tests of the command line share: running ward and judging its end, temporary files, TAP."""

import atexit
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import zlib

WARD = os.path.abspath(sys.argv[1])
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS = os.path.join(ROOT, "tests", "vectors", "models")
PHANTOM = os.path.join(ROOT, "models", "phantom")

scratch = tempfile.mkdtemp()
atexit.register(shutil.rmtree, scratch, ignore_errors=True)
for folder in ("cache", "state"): # what ward remembers of a test goes with it
    os.environ[f"XDG_{folder.upper()}_HOME"] = os.path.join(scratch, folder)
tests = []


class Skip(Exception):
    pass


def test(function):
    tests.append(function)
    return function


def run(*args, stdin=None, **more):
    """Runs ward to its end; standard input is empty unless given."""
    return subprocess.run([WARD, *args], input=stdin if stdin is not None else b"", stdout=more.pop("stdout", subprocess.PIPE),
                          stderr=subprocess.PIPE, timeout=120, **more)


def equal(got, expected, what):
    assert got == expected, f"{what}: got {got!r}, expected {expected!r}"


def succeeds(*args, **more):
    done = run(*args, **more)
    equal(done.returncode, 0, f"exit status of {args} ({done.stderr!r})")
    return done.stdout.decode()


def answer(*args, **more):
    """The object of `ward run --json`."""
    return json.loads(succeeds("run", *args, "--json", **more))


def refused(*args, words="", stdin=None, **more):
    """Bad input: status 1, one sentence, nothing on standard output."""
    done = run(*args, stdin=stdin, **more)
    lines = done.stderr.decode().splitlines()
    equal(done.returncode, 1, f"exit status of {args} ({lines})")
    assert len(lines) == 1 and lines[0].startswith("ward: "), f"{args} said {lines}"
    assert words in lines[0], f"{args} said {lines[0]!r}, which lacks {words!r}"
    assert not done.stdout, f"{args} wrote {done.stdout!r}"
    return lines[0]


def misused(*args, words=""):
    """Wrong usage: status 2, a sentence and the usage."""
    done = run(*args)
    lines = done.stderr.decode().splitlines()
    equal(done.returncode, 2, f"exit status of {args} ({lines})")
    assert lines[0].startswith("ward: ") and words in lines[0], f"{args} said {lines}, which lacks {words!r}"
    assert len(lines) == 1 or lines[1].startswith("usage: ward "), f"{args} said {lines}"
    assert not done.stdout, f"{args} wrote {done.stdout!r}"


def temporary(name, content=b""):
    path = os.path.join(scratch, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def copy_of(model):
    """A copy that a test may damage."""
    folder = tempfile.mkdtemp(dir=scratch)
    for name in os.listdir(model):
        if name != "golden.json":
            shutil.copy(os.path.join(model, name), folder)
    return folder


def png(width, height, shade):
    """An RGB image; shade(x, y) gives its gray."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    rows = b"".join(b"\0" + bytes(value for x in range(width) for value in [shade(x, y)] * 3) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Terminal:
    """ward on a terminal of its own."""

    def __init__(self, *args, **environment):
        try:
            self.pid, self.fd = pty.fork()
        except OSError as reason: # a bare chroot has no /dev/pts
            raise Skip(f"no terminal can be had: {reason}") from None
        if self.pid == 0:
            os.environ.update({"TERM": "xterm", **environment})
            os.execv(WARD, [WARD, *args])
        self.seen = b""
        self.position = 0 # in seen: what comes before has been waited for

    def read(self, seconds):
        """False at the end."""
        assert select.select([self.fd], [], [], max(0, seconds))[0], f"nothing came after {self.seen[-300:]!r}"
        try:
            chunk = os.read(self.fd, 65536)
        except OSError: # the other side of the terminal has gone
            return False
        self.seen += chunk
        return bool(chunk)

    def wait(self, wanted, seconds=30):
        """Reads until `wanted` has come; returns what came with it."""
        end = time.monotonic() + seconds
        while self.seen.find(wanted, self.position) < 0:
            assert self.read(end - time.monotonic()), f"it ended before {wanted!r}: {self.seen[-300:]!r}"
        start, self.position = self.position, self.seen.find(wanted, self.position) + len(wanted)
        return self.seen[start:self.position].decode(errors="replace")

    def send(self, text):
        """Types at a prompt, which libedit shows a moment before it sets the terminal for keys."""
        end = time.monotonic() + 30
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            assert time.monotonic() < end, f"the terminal takes lines after {self.seen[-300:]!r}"
            time.sleep(0.001)
        os.write(self.fd, text if isinstance(text, bytes) else text.encode())

    def type(self, text, until=b">>> "):
        self.send(text)
        return self.wait(until)

    def interrupt(self):
        """Ctrl-C, until the prompt. The system drops output that races with it, perhaps the prompt: an empty line brings another."""
        os.write(self.fd, b"\x03")
        for _ in range(10):
            try:
                return self.wait(b">>> ", 3)
            except AssertionError:
                os.write(self.fd, b"\r")
        return self.wait(b">>> ", 3)

    def close(self):
        while self.read(30):
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run_tests():
    """Runs every function marked @test, prints TAP, and returns the exit status."""
    failures = 0
    print(f"1..{len(tests)}", flush=True)
    for number, function in enumerate(tests, 1):
        name = function.__name__.replace("_", " ")
        try:
            function()
            print(f"ok {number} - {name}", flush=True)
        except Skip as reason:
            print(f"ok {number} - {name} # SKIP {reason}", flush=True)
        except Exception as problem: # every failure is reported, and the next test runs
            failures += 1
            print(f"not ok {number} - {name}", flush=True)
            where = traceback.extract_tb(problem.__traceback__)
            lines = [str(entry.lineno) for entry in where if entry.filename == function.__code__.co_filename]
            print(f"# {type(problem).__name__} at line {', '.join(lines)}: {problem}".replace("\n", "\n# "), flush=True)
    return 1 if failures else 0
