#!/usr/bin/env python3
"""The structs that tools/parity.py describes to ctypes have the fields of include/ward.h, in its order. Prints TAP."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def header_structs():
    """name -> field names, of every struct that the header defines."""
    header = re.sub(r"/\*.*?\*/", "", read("include", "ward.h"), flags=re.DOTALL)
    structs = {}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\};", header, re.DOTALL):
        declarators = [part for line in body.split(";") for part in line.split(",")]
        structs[name] = [re.search(r"(\w+)(\[\w*\])?\s*$", part)[1] for part in declarators if part.strip()]
    return structs


def parity_structs():
    calls = re.findall(r'struct\("(\w+)",(.*?)\)\)\n', read("tools", "parity.py"), re.DOTALL)
    return {name: re.findall(r'\("(\w+)",', fields) for name, fields in calls}


def main():
    header, parity, failed = header_structs(), parity_structs(), 0
    print(f"1..{len(parity) + 1}")
    ok = len(parity) >= 7
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} 1 - parity.py describes structs")
    for number, (name, fields) in enumerate(parity.items(), 2):
        ok = fields == header.get(name)
        failed += not ok
        print(f"{'ok' if ok else 'not ok'} {number} - {name}")
        if not ok:
            print(f"# parity.py has {fields}, ward.h {header.get(name)}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
