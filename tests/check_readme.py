#!/usr/bin/env python3
"""Runs the commands of README.md as they stand there: check_readme.py BUILD. Prints TAP.

Every line of its `sh` blocks is a command and runs in a folder that looks like the repository, with ward installed for
the test alone. The demo checkpoint and a drawn film stand in for ./models and xray.png, since nobody has to have those.
"""

import glob
import importlib.util
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(sys.argv[1])
FILM = sorted(glob.glob(os.path.join(ROOT, "examples", "*.png")))[0]
TIME_LIMIT = 300

TEST = "tools/setup.sh && make test"  # runs this program
DOWNLOAD = "huggingface-cli download google/medgemma-4b-it --local-dir ./models"
PARITY = "tools/parity.py"


def blocks(language):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return re.findall(rf"^```{language}\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def make_folder(folder):
    """The repository as links, so that what a command writes lands beside them; a sudo that needs no password."""
    for name in os.listdir(ROOT):
        if name not in (".git", "build"):
            os.symlink(os.path.join(ROOT, name), os.path.join(folder, name))
    os.symlink(BUILD, os.path.join(folder, "build"))
    os.symlink(FILM, os.path.join(folder, "xray.png"))
    tools = os.path.join(folder, "local", "bin")
    os.makedirs(tools)
    with open(os.path.join(tools, "sudo"), "w", encoding="utf-8") as file:
        file.write('#!/bin/sh\nexec "$@"\n')
    os.chmod(os.path.join(tools, "sudo"), 0o755)


def run(command, folder):
    """What went wrong, or None."""
    prefix = os.path.join(folder, "local")
    environment = {**os.environ, "BUILD": BUILD, "PREFIX": prefix, "PATH": f"{prefix}/bin:{os.environ['PATH']}",
                   "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig", "LD_LIBRARY_PATH": f"{prefix}/lib"}
    command = re.sub(r"(?<=\s)\./models(?=\s|$)", "models/phantom", command)
    command = command.replace("--preset medgemma-4b", "--preset tiny") # of random weights too a small one will do
    try:
        done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, timeout=TIME_LIMIT,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return f"not done after {TIME_LIMIT} seconds"
    output = done.stdout.decode(errors="replace")
    return None if done.returncode == 0 else f"status {done.returncode}: {output}"


def download_is_what_ward_says(folder):
    """A model that is not in the cache: the sentence names the same download."""
    environment = {**os.environ, "HF_HOME": folder}
    done = subprocess.run([f"{BUILD}/ward", "run", "-m", "google/medgemma-4b-it", "?"], env=environment,
                          timeout=TIME_LIMIT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = done.stderr.decode(errors="replace")
    return None if DOWNLOAD.split(" --")[0] in said else f"ward said: {said}"


def check(command, folder):
    """(fault or None, reason to skip or None)"""
    if command == TEST:
        missing = [part for part in TEST.split(" && ") if part not in read(".ci/run")]
        return f".ci/run does not run {missing}" if missing else None, None
    if command == DOWNLOAD:
        return download_is_what_ward_says(folder), None
    if command.startswith(PARITY) and not importlib.util.find_spec("transformers"):
        return None, "it compares with transformers, which is not installed"
    return run(command, folder), None


def dead_links():
    """Links between the pages of the documentation that lead nowhere, and pages that the index lacks."""
    names = sorted(name for name in os.listdir(os.path.join(ROOT, "docs")) if name.endswith(".md"))
    for page in ("README.md", "CONTRIBUTING.md", *(f"docs/{name}" for name in names)):
        for link in re.findall(r"\]\(([^)#:\s]+)[)#]", read(page)):
            if not os.path.exists(os.path.join(ROOT, os.path.dirname(page), link)):
                yield f"{page} links to {link}, which is not there"
    index = read("docs/README.md")
    for name in names:
        if name != "README.md" and f"({name})" not in index:
            yield f"docs/README.md does not list {name}"


def main():
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    programs = blocks("c")
    print(f"1..{len(commands) + 2}")
    example = read("examples/ask.c")
    failed = not programs or any(program not in example for program in programs)
    print(f"{'not ok' if failed else 'ok'} 1 - the C program is examples/ask.c")
    dead = list(dead_links())
    failed = failed or bool(dead)
    print(f"{'not ok' if dead else 'ok'} 2 - links between the pages lead somewhere")
    for link in dead:
        print(f"# {link}")
    with tempfile.TemporaryDirectory() as folder:
        make_folder(folder)
        for number, command in enumerate(commands, 3):
            fault, reason = check(command, folder)
            failed = failed or fault is not None
            skip = f" # SKIP {reason}" if reason else ""
            print(f"{'not ok' if fault else 'ok'} {number} - {command}{skip}", flush=True)
            for line in (fault or "").splitlines():
                print(f"# {line}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
