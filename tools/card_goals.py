"""What tools/card_report.py judges by: goals, shares of limits, the other cards; and the film that it measures with."""

import math
import random
import struct
import zlib

# Cards that a projection is made to; the page's own and those that it recommends.
OTHERS = ("RTX 3090", "RTX 3060", "Jetson AGX Orin", "Jetson Orin Nano")
READ = {"bf16": 0.80, "int8": 0.75, "q4_0": 0.65}  # of the bandwidth as a copy measures it
ENCODER = 0.45                                     # of the card's peak of bf16
TIMES_FASTER, FIRST_TOKEN_MS = 8, 40
MEMORY_GB = {"bf16": 9.0, "int8": 5.0, "q4_0": 3.1}
TOKENS = 200
# What is known before anything was measured. There is no goal for prefill: it is taken as the encoder's.
BOUNDS = ({"of": "the limits themselves: no program can be faster", "vision": 1, "prefill": 1, "read": dict.fromkeys(READ, 1)},
          {"of": "the goals", "vision": ENCODER, "prefill": ENCODER, "read": READ})


def draw_film(path, width=1000, height=1200):
    """A grey PNG of the size of an X-ray, the same everywhere: a bright middle, and noise."""
    noise = random.Random(0)
    columns = [math.exp(-((x - width / 2) ** 2) / 180000) for x in range(width)]
    lines = []
    for y in range(height):
        row, grain = math.exp(-((y - height / 2) ** 2) / 300000), noise.randbytes(width)
        lines.append(b"\0" + bytes(int(70 + 100 * row * column) + (g >> 3) for column, g in zip(columns, grain)))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(b"".join(lines), 6)) + chunk(b"IEND", b""))


# ---- limits ------------------------------------------------------------------------------------------------------------

def limits(document):
    """(bytes copied a second, operations a second) at most, by whichever program measured more: ward's kernels or PyTorch."""
    ours = [document["limits"], *(m["limits"]["measured"] for m in document["measured"].values())]
    copies = [entry["copy_gbs"] * 1e9 for entry in ours if entry]
    peaks = [entry["multiply_gops"]["bf16"] * 1e9 for entry in ours if entry]
    peers = document["peers"]
    copies += [peers["copy"]["gbs"] * 1e9] if "copy" in peers else []
    peaks += [peers["matmul"]["tflops"] * 1e12] if "matmul" in peers else []
    return max(copies), max(peaks)


def stage(measured, name):
    return measured["stages"][name]["mean"] if measured["stages"][name] else 0


def bytes_read(measured):
    """A second, of weights, while it generates."""
    return measured["limits"]["token_bytes"] * measured["throughput"]["decode_tps"]


def encoder_rate(measured):
    return measured["limits"]["image_operations"] / stage(measured, "vision") * 1e3


def first_token_ms(measured):
    """From handing in the image's file."""
    return sum(stage(measured, name) for name in ("image", "vision", "prefill", "first_token"))


# ---- goals -------------------------------------------------------------------------------------------------------------

def check_status(document, name):
    return next((check["status"] for check in document["checks"] if check["name"] == name), None)


def judge(document):
    """Fills document["goals"]: met is true, false, or null where it was not measured."""
    goals, measured = [], document["measured"]

    def add(name, goal, value, unit, met):
        goals.append({"name": name, "goal": goal, "measured": value, "unit": unit, "met": met})

    if document["limits"]:
        copy, peak = limits(document)
        for name, share in READ.items():
            value = 100 * bytes_read(measured[name]) / copy if name in measured else None
            add(f"decode, {name}: of copying", f">= {100 * share:.0f}", value, "%", None if value is None else value >= 100 * share)
        value = 100 * encoder_rate(measured["bf16"]) / peak if "bf16" in measured else None
        add("encoder, one image: of the peak of bf16", f">= {100 * ENCODER:.0f}", value, "%",
            None if value is None else value >= 100 * ENCODER)
    if "bf16" in measured:
        ours, pipeline = measured["bf16"]["latency_ms"]["mean"], document["peers"].get("pipeline", {}).get("mean_ms")
        value = pipeline / ours if pipeline else None
        add(f"an image and {TOKENS} tokens, bf16: times faster than the pipeline", f">= {TIMES_FASTER}", value, "",
            None if value is None else value >= TIMES_FASTER)
        value = first_token_ms(measured["bf16"])
        add("first token after an image, its file included, bf16", f"<= {FIRST_TOKEN_MS}", value, "ms", value <= FIRST_TOKEN_MS)
    for name, most in MEMORY_GB.items():
        if name in measured:
            value = max(bytes_ for bytes_ in measured[name]["memory"].values() if bytes_ is not None) / 1e9
            add(f"memory of the card, {name}", f"<= {most}", value, "GB", value <= most)
    for name, text in (("golden answers", "the processor's ids wherever its margin exceeds the error of bf16"),
                       ("two processes, the same seed", "the same seed, the same ids")):
        status = check_status(document, name)
        if status:
            add(text, "yes", None, status, {"passed": True, "failed": False}.get(status))
    document["goals"] = goals


# ---- shares ------------------------------------------------------------------------------------------------------------

def shares(document):
    """Of the card's limits, what ward reached, as ward doctor --shares takes it: of the published ones where the table of
    doctor has the card, since those of other cards are published ones, too; else of the measured ones. None: too little
    was measured."""
    measured, published = document["measured"], document.get("published")
    if "bf16" not in measured:
        return None
    copy, peak = limits(document)
    if published:
        copy, peak = published["read_gbs"] * 1e9, published["tflops"] * 1e12
    vision = encoder_rate(measured["bf16"]) / peak
    prefill = measured["bf16"]["limits"]["prompt_operations"] / stage(measured["bf16"], "prefill") * 1e3 / peak
    return {"of": f"{document['card']['name']}, of its {'published' if published else 'measured'} limits",
            "vision": vision, "prefill": prefill, "read": {name: bytes_read(entry) / copy for name, entry in measured.items()}}
