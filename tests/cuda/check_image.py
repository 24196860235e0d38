#!/usr/bin/env python3
"""The program holds the kernels that the Makefile names: check_image.py WARD. Prints TAP. Reads the containers themselves
(a fatbin's header of 16 bytes, then for each piece one that tells its kind and its architecture); NVIDIA's cuobjdump has to
see the same, where there is one."""

import os
import re
import shutil
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAGIC, PTX, ELF = 0xBA55ED50, 1, 2


def tool(name):
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def held(program):
    """(kind, architecture) of each piece in the program."""
    with open(program, "rb") as file:
        data = file.read()
    pieces = []
    for found in re.finditer(re.escape(struct.pack("<I", MAGIC)), data):
        at = found.start()
        _, version, header, size = struct.unpack_from("<IHHQ", data, at)
        if version != 1 or header != 16 or at + header + size > len(data):
            continue # the number, in a table of somebody's
        at, end = at + header, at + header + size
        while at < end:
            kind, header, size = struct.unpack_from("<HxxIQ", data, at)
            pieces.append((kind, struct.unpack_from("<I", data, at + 28)[0]))
            at += header + size
    return pieces


def kinds():
    """Those of the Makefile, as far as the toolkit knows them."""
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as makefile:
        named = re.search(r"^CUDA_KINDS\s*=\s*\$\(filter ([0-9 ]+),", makefile.read(), re.M).group(1).split()
    known = re.findall(r"sm_(\d+)\s", output(tool("nvcc"), "--list-gpu-code"))
    return sorted(int(kind) for kind in named if kind in known)


def check(number, what, problem):
    print(f"{'not ' if problem else ''}ok {number} - {what}" + (f"\n# {problem}" if problem else ""))
    return bool(problem)


def main():
    program = sys.argv[1]
    pieces = held(program)
    found, ptx = sorted(arch for kind, arch in pieces if kind == ELF), [arch for kind, arch in pieces if kind == PTX]
    print("1..2")
    if not tool("nvcc"):
        print("ok 1 - the program holds machine code of every kind of card, and PTX # SKIP nvcc is not here")
        failed = False
    else:
        failed = check(1, "the program holds machine code of every kind of card, and PTX",
                       "" if (found, ptx) == (kinds(), [80]) else f"machine code {found}, PTX {ptx}; the Makefile: {kinds()}, [80]")
    if not tool("cuobjdump") or not found:
        print("ok 2 - cuobjdump sees the same # SKIP", "no kernels" if not found else "cuobjdump is not here")
        return failed
    seen = sorted(int(arch) for arch in re.findall(r"sm_(\d+)\w*\.cubin", output(tool("cuobjdump"), "-lelf", program)))
    return failed | check(2, "cuobjdump sees the same", "" if seen == found else f"cuobjdump: {seen}; the headers: {found}")


if __name__ == "__main__":
    sys.exit(main())
