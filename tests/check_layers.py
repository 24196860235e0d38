#!/usr/bin/env python3
"""The layers, by their #include lines: base <- {model, image, kernels, cuda, quant, synth} <- engine <- bench <- cli; offline needs
base only. Prints TAP.

A file includes only what lies below it, in quotes, by its path from src/ (cli/: its own folder too).
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)

# What each layer may include: layers, or single headers. ward.h is open to all.
ALLOWED = {
    "base": {"base"},
    "model": {"base", "model"},
    "image": {"base", "image"},
    "kernels": {"base", "kernels", "model/tensor.h", "model/blocks.h", "model/to_float.h"},
    "cuda": {"base", "cuda"},
    "engine": {"base", "model", "image", "kernels", "cuda", "engine"},
    "quant": {"base", "model", "quant"},
    "synth": {"base", "model", "synth"},
    "offline": {"base", "offline"},
    "audit": {"base", "audit"},
    "bundle": {"base", "model", "bundle"},
    "bench": {"base", "model", "image", "kernels", "cuda", "engine", "bench"},
    "cli": {"base", "model", "image", "kernels", "cuda", "engine", "quant", "synth", "bench", "offline", "bundle", "audit", "cli"},
    "examples": set(),
}


def source_files(folder):
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            if name.endswith((".c", ".h", ".cu", ".cuh")):
                yield os.path.join(parent, name)


def included_path(path, included, top):
    """The included file's path from the root of the layers, or None when it does not exist."""
    beside = os.path.join(os.path.dirname(path), included)
    if os.path.exists(os.path.join(ROOT, "src", included)):
        return included
    return os.path.relpath(beside, os.path.dirname(top)) if os.path.exists(beside) else None


def faults_of(layer, top):
    faults = []
    for path in source_files(top):
        with open(path, encoding="utf-8") as file:
            for included in INCLUDE.findall(file.read()):
                if included == "ward.h":
                    continue
                target = included_path(path, included, top)
                if target is None:
                    faults.append(f"{os.path.relpath(path, ROOT)} includes {included}, which is not there")
                elif target.split("/")[0] not in ALLOWED[layer] and target not in ALLOWED[layer]:
                    faults.append(f"{os.path.relpath(path, ROOT)} includes {included}, which {layer} may not know")
    return faults


def main():
    outside = ("cli", "examples")
    folders = {layer: os.path.join(ROOT, layer if layer in outside else f"src/{layer}") for layer in ALLOWED}
    present = sorted(os.listdir(os.path.join(ROOT, "src")))
    print(f"1..{len(ALLOWED) + 1}")
    unknown = [name for name in present if name not in ALLOWED]
    print(f"{'not ok' if unknown else 'ok'} 1 - every folder of src is a layer")
    for name in unknown:
        print(f"# src/{name} has no rule")
    failed = bool(unknown)
    for number, (layer, folder) in enumerate(folders.items(), 2):
        faults = faults_of(layer, folder)
        if not any(source_files(folder)):
            faults = [f"there is nothing in {os.path.relpath(folder, ROOT)}"]
        print(f"{'not ok' if faults else 'ok'} {number} - {layer} includes only what lies below it")
        for fault in faults:
            print(f"# {fault}")
        failed = failed or bool(faults)
    sys.exit(failed)


if __name__ == "__main__":
    main()
