#!/usr/bin/env python3
"""Compares ward's tokenizer with Hugging Face's tokenizers library on any number of strings; says where they differ.

    check_tokenizer.py WARD FOLDER [--gguf FILE]... [--strings N] [--seed S] [--text PATH]...

WARD is the program; FOLDER holds Gemma's tokenizer.json, or that and tokenizer.model: each is checked by itself, with
tokenizer_config.json beside it. With --gguf the vocabularies of these files are checked instead. Strings are made of
random characters, pieces and tokens, and of stretches of the files under each PATH (default: /usr/share/doc,
/usr/share/man, /usr/include). Needs the package tokenizers. Exits 1 when anything differs.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

RANGES = [
    (0, 0x20), (0x20, 0x7F), (0x20, 0x7F), (0x80, 0x100), (0x300, 0x370), (0x400, 0x500), (0x590, 0x700),
    (0x900, 0xE00), (0x2000, 0x2070), (0x2190, 0x2600), (0x3040, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4),
    (0xE000, 0xF900), (0xFE00, 0x10000), (0x1F1E6, 0x1F200), (0x1F300, 0x1FB00), (0x20000, 0x2FFFF), (0xE0000, 0xE01F0),
    (0, 0x110000),
]  # fmt: skip
TRICKY = [
    "👩🏽‍⚕️", "🏳️‍🌈", "e\u0301", "ﷺ", "\u200d", "\ufeff", "\0", "\u2028", "İ", "<unused94>thought\n", "\r\n", "  \n  \n",
    "▁▁", "▁ ▁", " ▁", "<start_of_image>", "<start_of_", "</table", "<0x0A>",
]  # fmt: skip
BATCH = 2000


class Source:
    """Random strings and ids."""

    def __init__(self, rng, reference, files):
        self.rng = rng
        self.files = files
        self.size = reference.get_vocab_size()
        self.pieces = sorted(reference.get_vocab())
        self.added = sorted(token.content for token in reference.get_added_tokens_decoder().values())
        self.byte = reference.token_to_id("<0x00>")

    def character(self):
        while True:
            code = self.rng.randrange(*self.rng.choice(RANGES))
            if not 0xD800 <= code < 0xE000:
                return chr(code)

    def fragment(self):
        rng = self.rng
        kind = rng.randrange(10)
        if kind == 0:
            return "".join(self.character() for _ in range(rng.randrange(1, 20)))
        if kind == 1:
            return rng.choice(self.pieces)
        if kind == 2:
            return rng.choice(self.pieces).replace("▁", " ")
        if kind == 3:
            return rng.choice(self.added)
        if kind == 4:
            return rng.choice(self.added)[: rng.randrange(1, 12)]
        if kind == 5:
            return rng.choice(" \n\t▁") * rng.randrange(1, 40)
        if kind == 6:
            return "".join(rng.choice(" \n\t\r▁") for _ in range(rng.randrange(1, 12)))
        if kind == 7:
            return " " + "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randrange(1, 20)))
        if kind == 8:
            return rng.choice(TRICKY)
        return rng.choice("!@#$%^&*()_+-=[]{}|;:,.<>/?`~\\\"'") * rng.randrange(1, 9)

    def text(self):
        if self.files and self.rng.random() < 0.35:
            whole = self.rng.choice(self.files)
            start = self.rng.randrange(len(whole))
            return whole[start : start + self.rng.choice([5, 40, 200, 1000])]
        return "".join(self.fragment() for _ in range(self.rng.randrange(1, 8)))

    def ids(self):
        rng = self.rng
        ids = []
        for _ in range(rng.randrange(1, 12)):
            kind = rng.randrange(4)
            if kind == 0:
                ids += [self.byte + value for value in self.character().encode()]
            elif kind == 1:
                ids.append(self.byte + rng.randrange(256))
            else:
                ids.append(rng.randrange(self.size if kind == 2 else 260))
        return ids


def read_files(paths, rng, limit=1500):
    names = [os.path.join(parent, name) for path in paths for parent, _, names in os.walk(path) for name in names]
    rng.shuffle(names)
    texts = []
    for name in names[:limit]:
        try:
            with open(name, "rb") as file:
                data = file.read(1 << 21)
            text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        if text:
            texts.append(text)
    return texts


def ask(ward, model, values, *options):
    lines = "".join(json.dumps(value) + "\n" for value in values)
    command = [ward, "tokenize", "-m", model, "--json", *options]
    answer = subprocess.run(command, input=lines, capture_output=True, text=True, encoding="utf-8", check=False)
    if answer.returncode:
        sys.exit(answer.stderr)
    return [json.loads(line) for line in answer.stdout.removesuffix("\n").split("\n")]


def report(what, given, expected, got):
    """1 when they differ, which is shown."""
    if got == expected:
        return 0
    print(f"{what}: {given!r}\n    expected {expected!r}\n    got      {got!r}")
    return 1


def check(ward, model, file, reference, source, count):
    special = {id for id, token in reference.get_added_tokens_decoder().items() if token.special}
    bad = done = 0
    while done < count:
        texts = [source.text() for _ in range(min(BATCH, count - done))]
        lists = [source.ids() for _ in range(len(texts) // 2)]
        done += len(texts)
        expected = [encoding.ids for encoding in reference.encode_batch(texts, add_special_tokens=False)]
        for text, want, got in zip(texts, expected, ask(ward, model, texts), strict=True):
            bad += report(f"{file}, ids", text, want, got)
        for text, got in zip(texts, ask(ward, model, texts, "--plain"), strict=True):
            bad += report(f"{file}, special ids of plain text", text, set(), special & set(got))
        for ids, got in zip(lists, ask(ward, model, lists, "--decode"), strict=True):
            bad += report(f"{file}, text", ids, reference.decode(ids, skip_special_tokens=False), got)
    print(f"{file}: {done} strings, {done // 2} lists of ids, {bad} differences")
    return bad


def check_file(ward, folder, file, *arguments):
    """One of the folder's files, without the other."""
    with tempfile.TemporaryDirectory() as alone:
        for name in (file, "tokenizer_config.json", "added_tokens.json"):
            if os.path.exists(os.path.join(folder, name)):
                os.symlink(os.path.join(folder, name), os.path.join(alone, name))
        return check(ward, alone, file, *arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ward")
    parser.add_argument("folder")
    parser.add_argument("--gguf", action="append")
    parser.add_argument("--strings", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", action="append")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = os.path.abspath(options.folder)
    reference = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    files = read_files(options.text or ["/usr/share/doc", "/usr/share/man", "/usr/include"], rng)
    source = Source(rng, reference, files)
    if options.gguf:
        bad = sum(check(options.ward, file, os.path.basename(file), reference, source, options.strings)
                  for file in options.gguf)
    else:
        bad = sum(check_file(options.ward, folder, file, reference, source, options.strings)
                  for file in ("tokenizer.json", "tokenizer.model") if os.path.exists(os.path.join(folder, file)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
