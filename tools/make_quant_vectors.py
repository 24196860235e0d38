#!/usr/bin/env python3
"""Writes tests/vectors/quant.bin: rows of float32 and what the Python package `gguf` quantizes them to.

    make_quant_vectors.py [OUT]        needs numpy and gguf (checked with 0.19)

One record for each row and type: uint32 type as GGUF numbers it, uint32 values, the values, then the quantized bytes.
"""

import os
import struct
import sys

import gguf
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TYPES = [gguf.GGMLQuantizationType[name] for name in ("F16", "BF16", "Q8_0", "Q4_0")]
ROW = 128


def rows():
    random = np.random.default_rng(20)
    for scale in (1e-6, 3e-4, 0.02, 1.0, 900.0):
        yield random.standard_normal(ROW) * scale
        yield random.standard_t(2, ROW) * scale
    bf16 = random.standard_normal(4 * ROW).astype(np.float32)  # as the weights come
    yield from (bf16.view(np.uint32) & 0xFFFF0000).view(np.float32).reshape(4, ROW)
    yield np.round(random.standard_normal(ROW) * 4) / 8  # many ties
    yield np.zeros(ROW)
    yield -np.zeros(ROW)
    yield np.where(np.arange(ROW) % 32 == 5, -65504, 0)  # one value alone
    yield np.where(np.arange(ROW) % 2, 1, -1)  # the same magnitude all over
    yield np.full(ROW, 1e-42)  # too small for a scale
    yield np.linspace(-127, 127, ROW) * 0.5  # halves, rounded away from zero


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "tests", "vectors", "quant.bin")
    with open(path, "wb") as out, np.errstate(all="ignore"):
        for row in rows():
            values = np.clip(row, -65504, 65504).astype(np.float32)
            for kind in TYPES:
                packed = np.ascontiguousarray(gguf.quants.quantize(values, kind)).view(np.uint8).tobytes()
                out.write(struct.pack("<II", kind.value, values.size) + values.tobytes() + packed)


if __name__ == "__main__":
    main()
