#!/usr/bin/env python3
"""How the cost of an answer grows: with the context, with images, with threads. Writes a page and its plot.

    performance.py --model bf16=./models --model q4_0=medgemma-q4_0.gguf --image xray.png [--out docs/performance]
                   [--contexts 300,2048,8192] [--images 1,2] [--rounds 3] [--ward build/ward]

Runs `ward run --json` as a user does, one process for each figure, and takes the median of the rounds. --long NAME=N
goes on for one model to prompts of N tokens, --many NAME=N,N to more images. Figures are kept in OUT.json, so that an interrupted run goes on where it
was; OUT.md and OUT.svg are made of them. Needs Python's standard library and Linux.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

QUESTION = "Describe this X-ray."
DECODED = 24  # tokens after the first, for the speed of decoding
WORDS = ("the film shows a small opacity in the right lower zone and no effusion or pneumothorax is seen while the heart "
         "is of normal size and the line ends in the middle of the chest which was so before").split()


class Ward:
    def __init__(self, options):
        self.options, self.path = options, options.out + ".json"
        self.figures, self.warm = {}, set()
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                self.figures = json.load(file)

    def run(self, model, arguments, prompt):
        command = [self.options.ward, "run", "-m", model, "--json", "--ignore-eos", "--draft-max", "0", *arguments, "-"]
        done = subprocess.run(command, input=prompt.encode(), capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"performance.py: {' '.join(command)}: {done.stderr.decode().strip()}")
        return json.loads(done.stdout)

    def measure(self, key, model, arguments, prompt, before=None):
        """Medians of what one question takes; measured once, then taken from the file."""
        if key not in self.figures:
            if before is None and model not in self.warm: # the files into memory
                self.run(model, ["-n", "1"], QUESTION)
                self.warm.add(model)
            runs = []
            for _ in range(self.options.rounds):
                if before:
                    before()
                runs.append(self.run(model, arguments, prompt))
            timings = [run["timings"] for run in runs]
            figure = {name: statistics.median(one[name] for one in timings)
                      for name in ("vision_ms", "prefill_ms", "decode_ms", "first_token_ms", "total_ms", "load_ms")}
            figure |= {"prefill_tokens": timings[0]["prefill_tokens"], "decode_tokens": timings[0]["decode_tokens"],
                       "peak_rss": max(run["memory"]["peak_rss_bytes"] for run in runs), "kernels": runs[0]["kernels"]}
            self.figures[key] = figure
            with open(self.path, "w", encoding="utf-8") as file:
                json.dump(self.figures, file, indent=1)
            print(f"{key}: {figure}", file=sys.stderr, flush=True)
        return self.figures[key]

    def prompt(self, model, tokens):
        """A question of about so many tokens."""
        def text(n):
            return " ".join(WORDS[i * 7 % len(WORDS)] for i in range(n))
        sample = subprocess.run([self.options.ward, "tokenize", "-m", model, "--json", text(400)], capture_output=True,
                                check=True)
        return text(max(1, round((tokens - 10) * 400 / len(json.loads(sample.stdout)))))


def per_second(tokens, ms):
    return 1000 * tokens / ms if ms else 0


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    family = f"family {fields.get('cpu family')}, model {fields.get('model')}"
    return f"{fields.get('model name', 'unknown processor')} ({family}), {len(os.sched_getaffinity(0))} processors"


# ---- the plot -------------------------------------------------------------------------------------------------------

COLOURS = ("#1b6ca8", "#c8553d", "#4f8a3d", "#8a5fa8")


def panel(title, unit, series, left, logarithmic):
    """One plot of [(name, [(x, y)])] as SVG, 400 wide."""
    import math
    width, height, top = 300, 200, 50
    xs = sorted({x for _, points in series for x, _ in points})
    highest = max(y for _, points in series for _, y in points) * 1.08

    def place(x, y):
        low, high = xs[0], xs[-1] if len(xs) > 1 else xs[0] + 1
        part = math.log(x / low) / math.log(high / low) if logarithmic else (x - low) / (high - low)
        return left + 50 + part * width, top + height - y / highest * height

    out = [f'<text x="{left + 50}" y="28" font-weight="bold">{title}</text>',
           f'<path d="M{left + 50} {top}V{top + height}H{left + 50 + width}" fill="none" stroke="#555"/>']
    for step in range(1, 5):
        value = highest * step / 4
        _, y = place(xs[0], value)
        out.append(f'<path d="M{left + 50} {y:.1f}h{width}" stroke="#ddd"/>')
        out.append(f'<text x="{left + 45}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for x in xs:
        out.append(f'<text x="{place(x, 0)[0]:.1f}" y="{top + height + 18}" text-anchor="middle">{x}</text>')
    out.append(f'<text x="{left + 50 + width / 2}" y="{top + height + 38}" text-anchor="middle">{unit}</text>')
    for i, (name, points) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (place(*point) for point in points))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{place(*point)[0]:.1f}" cy="{place(*point)[1]:.1f}" r="3" fill="{colour}"/>'
                for point in points]
        out.append(f'<text x="{left + 60}" y="{top + height + 60 + 16 * i}" fill="{colour}">{name}</text>')
    return out


def plot(panels):
    width = 390 * len(panels)
    rows = max(len(series) for _, _, series, _ in panels)
    body = [line for i, (title, unit, series, logarithmic) in enumerate(panels)
            for line in panel(title, unit, series, 390 * i, logarithmic)]
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {310 + 16 * rows}" '
                      'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
                      *body, "</svg>", ""])


# ---- the page -------------------------------------------------------------------------------------------------------

def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|--" * len(head) + "|",
                      *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def measure_contexts(ward, options, models):
    rows, prefill, decode = [], [], []
    for name, model in models.items():
        points = []
        for context in sorted({*options.contexts, *([options.long[name]] if name in options.long else [])}):
            arguments = ["-n", str(DECODED + 1), "--ctx", str(context + 512)]
            points.append(ward.measure(f"{name} context {context}", model, arguments, ward.prompt(model, context)))
        for f in points:
            rows.append([name, f["prefill_tokens"], f"{per_second(f['prefill_tokens'], f['prefill_ms']):.1f}",
                         f"{per_second(f['decode_tokens'], f['decode_ms']):.2f}", f"{f['prefill_ms'] / 1e3:.1f}",
                         f"{f['peak_rss'] / 1e9:.2f}"])
        prefill.append((name, [(f["prefill_tokens"], per_second(f["prefill_tokens"], f["prefill_ms"])) for f in points]))
        decode.append((name, [(f["prefill_tokens"], per_second(f["decode_tokens"], f["decode_ms"])) for f in points]))
    head = ["weights", "prompt, tokens", "prefill, tokens/s", "decode, tokens/s", "prefill, s", "peak memory, GB"]
    return table(head, rows), [("Prefill, tokens/s", "tokens of prompt", prefill, True),
                               ("Decode, tokens/s", "tokens of context", decode, True)]


def measure_images(ward, options, models):
    rows, vision = [], []
    for name, model in models.items():
        points = []
        for n in [*options.images, *options.many.get(name, [])]:
            arguments = ["-n", "2", *[word for i in range(n) for word in ("-i", options.copies[i])]]
            points.append((n, ward.measure(f"{name} images {n}", model, arguments, QUESTION)))
        rows += [[name, n, f"{f['vision_ms'] / 1e3:.2f}", f"{f['prefill_ms'] / 1e3:.2f}",
                  f"{f['first_token_ms'] / 1e3:.2f}", f"{f['peak_rss'] / 1e9:.2f}"] for n, f in points]
        vision.append((name, [(n, f["first_token_ms"] / 1e3) for n, f in points]))
    head = ["weights", "images", "vision, s", "prefill, s", "first token, s", "peak memory, GB"]
    return table(head, rows), [("First token, s", "images", vision, False)]


def measure_threads(ward, options, models):
    rows = []
    for name, model in models.items():
        for n in range(1, len(os.sched_getaffinity(0)) + 1):
            arguments = ["-n", str(DECODED + 1), "-t", str(n), "-i", options.copies[0]]
            f = ward.measure(f"{name} threads {n}", model, arguments, ward.prompt(model, 300))
            rows.append([name, n, f"{f['vision_ms'] / 1e3:.2f}",
                         f"{per_second(f['prefill_tokens'], f['prefill_ms']):.1f}",
                         f"{per_second(f['decode_tokens'], f['decode_ms']):.2f}"])
    return table(["weights", "threads", "vision, s", "prefill, tokens/s", "decode, tokens/s"], rows)


def forget(model):
    """Drops the files of a model, and what lies beside them, from the page cache."""
    folder = model if os.path.isdir(model) else os.path.dirname(model) or "."
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def measure_cold(ward, options, models):
    rows = []
    for name, model in models.items():
        arguments = ["-n", "2", "-i", options.copies[0]]
        prompt = ward.prompt(model, 300)
        for state, before in (("disk", lambda path=model: forget(path)), ("memory", None)):
            f = ward.measure(f"{name} from {state}", model, arguments, prompt, before)
            rows.append([name, state, f"{f['load_ms'] / 1e3:.2f}", f"{f['vision_ms'] / 1e3:.2f}",
                         f"{f['prefill_ms'] / 1e3:.2f}", f"{f['first_token_ms'] / 1e3:.2f}"])
    return table(["weights", "from", "open, s", "vision, s", "prefill, s", "first token, s"], rows)


PAGE = """# How the cost grows

Made by `tools/performance.py` from runs of the program, one process for each figure, {rounds}; speculation off. On
{processor}; kernels: {kernels}. Machines differ: take the shape of the curves, not the figures, and run the script
on yours.

![prefill, decode and first token](performance.svg)

## Context

{contexts}

A prompt costs its products with the weights, the same for every token, and its attention: in five of the six layers a token
sees 1,024 others at most, in every sixth all. Decoding reads all weights once for each token, and the cache.

## Images

{images}

Each image goes through the encoder by itself and becomes 256 tokens.

## Threads

{threads}

## From a cold disk

An image and 300 tokens of text. The files are dropped from the page cache before each run; a thread of ward's then asks for
the weights in the order of their use while the image is read and encoded.

{cold}
"""


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--image", required=True)
    parser.add_argument("--ward", default="build/ward")
    parser.add_argument("--out", default="docs/performance")
    parser.add_argument("--contexts", type=numbers, default=[300, 2048, 8192])
    parser.add_argument("--long", action="append", default=[], metavar="NAME=N")
    parser.add_argument("--images", type=numbers, default=[1, 2])
    parser.add_argument("--many", action="append", default=[], metavar="NAME=N,N")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    models = dict(pair.split("=", 1) for pair in options.model)
    options.long = {name: int(n) for name, n in (pair.split("=", 1) for pair in options.long)}
    options.many = {name: numbers(text) for name, text in (pair.split("=", 1) for pair in options.many)}
    # The same pixels would be encoded once: each image is another.
    options.copies = [options.image] + [make_copy(options, i) for i in range(1, max(*options.images, *sum(options.many.values(), [])))]
    ward = Ward(options)
    contexts, panels = measure_contexts(ward, options, models)
    images, more = measure_images(ward, options, models)
    threads = measure_threads(ward, options, models)
    cold = measure_cold(ward, options, models)
    rounds = "one run each" if options.rounds == 1 else f"medians of {options.rounds} runs"
    kernels = ", ".join(sorted({figure["kernels"] for figure in ward.figures.values()}))
    with open(options.out + ".svg", "w", encoding="utf-8") as file:
        file.write(plot(panels + more))
    with open(options.out + ".md", "w", encoding="utf-8") as file:
        file.write(PAGE.format(rounds=rounds, processor=processor(), kernels=kernels, contexts=contexts,
                               images=images, threads=threads, cold=cold))


def make_copy(options, number):
    """The image again as PPM pixels of another brightness, written as PNG."""
    import struct
    import tempfile
    import zlib
    size = 512
    ppm = subprocess.run([options.ward, "preprocess", "-m", options.model[0].split("=", 1)[1], "-i", options.image,
                          "--size", str(size), "--out", "-"], capture_output=True, check=True).stdout
    pixels = bytes(min(255, value + number) for value in ppm[-3 * size * size:])
    lines = b"".join(b"\0" + pixels[3 * size * y:3 * size * (y + 1)] for y in range(size))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path = os.path.join(tempfile.gettempdir(), f"ward-performance-{number}.png")
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    return path


if __name__ == "__main__":
    main()
