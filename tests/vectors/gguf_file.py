"""Writes small random checkpoints of Gemma 3 as GGUF files, in the layout of llama.cpp's converter or of Ollama's.

The bytes follow from the name of a checkpoint and of each tensor alone, so the repository need not hold them: the file
that tools/make_gguf_vectors.py asked transformers and llama.cpp about is written again by every test run. Quantized
tensors are random bits under random scales, which reach every value that a block can hold; no quantizer is needed.
"""

import hashlib
import itertools
import json
import math
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = 448  # of the embedding: more than there are tokens, as in the original
ALIGNMENT = 32
UINT32, FLOAT32, BOOL, STRING, ARRAY, INT32 = 4, 6, 7, 8, 9, 5  # types of values
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of tokens


def shape(hidden, inner, heads, kv_heads, head_dim, window, layers=6):
    return {"hidden": hidden, "inner": inner, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim,
            "window": window, "layers": layers}


WHOLE = shape(256, 512, 4, 2, 64, 24)  # rows that all types can store
ODD = shape(288, 352, 3, 1, 96, 40)    # rows of whole blocks of 32 only
PART = shape(256, 288, 4, 2, 72, 16, layers=7)  # the attention's output and the MLP's have such rows, the rest do not
ENCODER = {"hidden": 64, "inner": 80, "heads": 2, "layers": 2, "image": 112, "patch": 14, "tokens": 4}

FLOATS = ("f32", "f16", "bf16")
LEGACY = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")
K = ("q4_k", "q5_k", "q6_k")
IN_32 = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}  # llama.cpp's, where a row is not whole blocks of 256

# name -> shape and types: of all matrices, or those of a mixture; with an encoder: its type, the layout of the files
CHECKPOINTS = {
    **{kind: {"shape": WHOLE, "type": kind} for kind in FLOATS + LEGACY + K},
    "q4_k_m": {"shape": WHOLE, "type": "q4_k", "better": "q6_k"},
    **{f"odd-{kind}": {"shape": ODD, "type": kind} for kind in ("f16", *LEGACY)},
    "part-q4_k_m": {"shape": PART, "type": "q4_k", "better": "q6_k"},
    "part-q5_k_m": {"shape": PART, "type": "q5_k", "better": "q6_k"},
    "part-q6_k": {"shape": PART, "type": "q6_k"},
    "vision-f32": {"shape": WHOLE, "type": "bf16", "encoder": "f32"},
    "vision-f16": {"shape": ODD, "type": "f16", "encoder": "f16"},
    "vision-q8_0": {"shape": WHOLE, "type": "q8_0", "encoder": "q8_0", "swapped": True},
    "vision-ollama": {"shape": WHOLE, "type": "f16", "encoder": "f16", "ollama": True},
}

# ---- values ---------------------------------------------------------------------------------------------------------


class Numbers:
    """Random bytes that follow from a text, the same on every machine."""

    def __init__(self, seed):
        self.seed, self.asked = seed, 0

    def bytes(self, n):
        self.asked += 1
        return hashlib.shake_256(f"{self.seed}/{self.asked}".encode()).digest(n)

    def uniform(self, n):
        """Between -1 and 1."""
        return [(v + 0.5) / 32768 for v in struct.unpack(f"<{n}h", self.bytes(2 * n))]

    def signs(self, n):
        return [1 if v & 1 else -1 for v in self.bytes(n)]


def chunks(data, size):
    return (data[at:at + size] for at in range(0, len(data), size))


def halves(values):
    return list(chunks(struct.pack(f"<{len(values)}e", *values), 2))


def scales(numbers, n, size):
    """Of blocks: of either sign, from a half to three halves of the size."""
    return [size * sign * (1 + u / 2) for sign, u in zip(numbers.signs(n), numbers.uniform(n))]


def pack_floats(kind, values):
    if kind == "f16":
        return struct.pack(f"<{len(values)}e", *values)
    wide = struct.pack(f"<{len(values)}f", *values)
    if kind == "bf16":
        rounded = bytearray(len(wide) // 2)
        rounded[0::2], rounded[1::2] = wide[2::4], wide[3::4]
        return bytes(rounded)
    return wide


def pack_32(kind, numbers, n, spread):
    """n blocks of 32: a scale, a minimum, the fifth bits, the rest."""
    levels = {"q8_0": 256, "q4_0": 16, "q4_1": 16, "q5_0": 32, "q5_1": 32}[kind]
    d = scales(numbers, n, spread * math.sqrt(12) / levels)
    parts = [halves(d)]
    if kind in ("q4_1", "q5_1"):
        parts.append(halves([-v * (levels / 2 + u) for v, u in zip(d, numbers.uniform(n))]))
    if kind in ("q5_0", "q5_1"):
        parts.append(list(chunks(numbers.bytes(4 * n), 4)))
    bits = 32 if kind == "q8_0" else 16
    parts.append(list(chunks(numbers.bytes(bits * n), bits)))
    return b"".join(itertools.chain.from_iterable(zip(*parts)))


def pack_256(kind, numbers, n, spread):
    """n blocks of 256; their integer scales and minima are as random as the rest."""
    if kind == "q6_k":
        tail = halves(scales(numbers, n, spread / (74 * 18.5)))
        return b"".join(itertools.chain.from_iterable(zip(chunks(numbers.bytes(208 * n), 208), tail)))
    size = 144 if kind == "q4_k" else 176
    middle = 7.5 if kind == "q4_k" else 15.5
    d = scales(numbers, n, spread / (34 * middle))
    low = halves([v * middle * (1 + u / 8) for v, u in zip(d, numbers.uniform(n))])
    rest = chunks(numbers.bytes((size - 4) * n), size - 4)
    return b"".join(itertools.chain.from_iterable(zip(halves(d), low, rest)))


def pack(kind, numbers, n, spread):
    """n random values of about this spread as the type stores them."""
    if kind in FLOATS:
        return pack_floats(kind, [u * spread * math.sqrt(3) for u in numbers.uniform(n)])
    return pack_32(kind, numbers, n // 32, spread) if kind in LEGACY else pack_256(kind, numbers, n // 256, spread)


# ---- the container --------------------------------------------------------------------------------------------------

IDS = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q4_k": 12, "q5_k": 13,
       "q6_k": 14}


def pack_text(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def pack_value(kind, value):
    if isinstance(value, list):
        return struct.pack("<IQ", kind, len(value)) + b"".join(pack_value(kind, v) for v in value)
    if kind == STRING:
        return pack_text(value)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


class File:
    def __init__(self, seed):
        self.seed = seed
        self.values, self.tensors, self.data = [], [], []
        self.size = 0
        self.names = {}  # parts of names that are written otherwise

    def put(self, kind, **values):
        """Values of one type; of the keys, dots are written as two underscores."""
        for key, value in values.items():
            head = struct.pack("<I", ARRAY if isinstance(value, list) else kind)
            self.values.append(pack_text(key.replace("__", ".")) + head + pack_value(kind, value))

    def add(self, name, kind, dims, data):
        """dims: slowest first."""
        for old, new in self.names.items():
            if old in name:
                name = name.replace(old, new)
                break
        self.tensors.append(pack_text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *reversed(dims), IDS[kind],
                                                          self.size))
        self.data.append(data + b"\0" * (-len(data) % ALIGNMENT))
        self.size += len(self.data[-1])

    def matrix(self, name, kind, dims, spread=1.0):
        """Values of this spread over the root of a row's length."""
        if kind in K and dims[-1] % 256:
            kind = IN_32[kind]
        spread /= math.sqrt(math.prod(dims[1:]))
        self.add(name, kind, dims, pack(kind, Numbers(f"{self.seed}/{name}"), math.prod(dims), spread))

    def vector(self, name, n, middle=0.0, spread=0.2, either_sign=False):
        numbers = Numbers(f"{self.seed}/{name}")
        signs = numbers.signs(n) if either_sign else [1] * n
        self.add(name, "f32", [n], pack_floats("f32", [s * middle + spread * u
                                                       for s, u in zip(signs, numbers.uniform(n))]))

    def write(self, path):
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.values))
        head += b"".join(self.values) + b"".join(self.tensors)
        head += b"\0" * (-len(head) % ALIGNMENT)
        with open(path, "wb") as out:
            out.write(head)
            out.writelines(self.data)


# ---- Gemma 3 --------------------------------------------------------------------------------------------------------


def put_tokenizer(file):
    """The vocabulary of the safetensors checkpoints: what merges earlier scores higher. Tokens that were added lose the
    marks of their spaces, and what has no token is filled up, both as in llama.cpp's converter."""
    with open(os.path.join(HERE, "models", "f16", "tokenizer.json"), encoding="utf-8") as source:
        tokenizer = json.load(source)
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    merges = {"".join(pair): rank for rank, pair in reversed(list(enumerate(tokenizer["model"]["merges"])))}
    pieces = {number: piece for piece, number in tokenizer["model"]["vocab"].items()}
    tokens, marks, types = [], [], []
    for number in range(ROWS):
        piece = pieces.get(number, f"[PAD{number}]")
        if number not in pieces:
            kind, mark = UNUSED, -1000.0
        elif number in added:
            kind = CONTROL if added[number]["special"] or piece.startswith("<unused") else USER
            kind, mark = UNKNOWN if piece == "<unk>" else kind, -1000.0
        elif piece.startswith("<0x"):
            kind, mark = BYTE, -1000.0
        else:
            kind, mark = NORMAL, -float(merges.get(piece, len(merges)))
        tokens.append(piece.replace("\u2581", " ") if kind == USER else piece)
        marks.append(mark)
        types.append(kind)
    with open(os.path.join(HERE, "models", "f16", "chat_template.jinja"), encoding="utf-8") as source:
        template = source.read()
    ids = tokenizer["model"]["vocab"]
    file.put(STRING, tokenizer__ggml__model="llama", tokenizer__ggml__pre="default", tokenizer__ggml__tokens=tokens,
             tokenizer__chat_template=template)
    file.put(FLOAT32, tokenizer__ggml__scores=marks)
    file.put(INT32, tokenizer__ggml__token_type=types)
    file.put(UINT32, tokenizer__ggml__bos_token_id=ids["<bos>"], tokenizer__ggml__eos_token_id=ids["<end_of_turn>"],
             tokenizer__ggml__unknown_token_id=ids["<unk>"], tokenizer__ggml__padding_token_id=ids["<pad>"])
    file.put(BOOL, tokenizer__ggml__add_bos_token=True, tokenizer__ggml__add_eos_token=False,
             tokenizer__ggml__add_space_prefix=False)


def put_text_config(file, s, ollama):
    """Ollama's files leave out what Ollama knows of Gemma 3."""
    file.put(STRING, general__architecture="gemma3")
    file.put(UINT32, gemma3__block_count=s["layers"], gemma3__context_length=4096, gemma3__embedding_length=s["hidden"],
             gemma3__feed_forward_length=s["inner"], gemma3__attention__head_count=s["heads"],
             gemma3__attention__head_count_kv=s["kv_heads"], gemma3__attention__key_length=s["head_dim"],
             gemma3__attention__value_length=s["head_dim"], gemma3__attention__sliding_window=s["window"])
    if ollama:
        file.put(FLOAT32, gemma3__rope__local__freq_base=1e4, gemma3__rope__global__freq_base=1e6)
        return
    file.put(STRING, gemma3__rope__scaling__type="linear")
    file.put(FLOAT32, gemma3__attention__layer_norm_rms_epsilon=1e-6, gemma3__rope__freq_base=1e6,
             gemma3__rope__freq_base_swa=1e4, gemma3__rope__scaling__factor=8.0)


def is_better(layer, layers):
    """Which layers' values and down-projections a mixture of llama.cpp's keeps in the better type."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def put_text(file, spec):
    s, kind = spec["shape"], spec["type"]
    hidden, inner, queries, keys = s["hidden"], s["inner"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    file.matrix("token_embd.weight", spec.get("better", kind), [ROWS, hidden], 2)
    # Near -1 or 1: the last norm breaks the likeness of input and output, or every token would repeat itself.
    file.vector("output_norm.weight", hidden, 1, either_sign=True)
    for layer in range(s["layers"]):
        name = f"blk.{layer}."
        more = spec["better"] if "better" in spec and is_better(layer, s["layers"]) else kind
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            file.vector(f"{name}{norm}.weight", hidden, 1)
        for norm in ("attn_q_norm", "attn_k_norm"):
            file.vector(f"{name}{norm}.weight", s["head_dim"], 1.5)
        file.matrix(f"{name}attn_q.weight", kind, [queries, hidden])
        file.matrix(f"{name}attn_k.weight", kind, [keys, hidden])
        file.matrix(f"{name}attn_v.weight", more, [keys, hidden])
        file.matrix(f"{name}attn_output.weight", kind, [hidden, queries])
        file.matrix(f"{name}ffn_gate.weight", kind, [inner, hidden])
        file.matrix(f"{name}ffn_up.weight", kind, [inner, hidden])
        file.matrix(f"{name}ffn_down.weight", more, [hidden, inner])


# ---- the image encoder ----------------------------------------------------------------------------------------------

OLLAMA = {"v.patch_embd.": "v.patch_embedding.", "v.position_embd.": "v.position_embedding.",
          "v.post_ln.": "v.post_layernorm.", ".ln1.": ".layer_norm1.", ".ln2.": ".layer_norm2.",
          ".attn_out.": ".attn_output.", ".ffn_up.": ".mlp.fc1.", ".ffn_down.": ".mlp.fc2.",
          "mm.input_projection.": "mm.mm_input_projection.", "mm.soft_emb_norm.": "mm.mm_soft_emb_norm."}
SWAPPED = {".ffn_up.": ".ffn_down.", ".ffn_down.": ".ffn_up."}  # in old files of llama.cpp's


def put_encoder_config(file, text, ollama):
    e = ENCODER
    prefix = "gemma3__vision__" if ollama else "clip__vision__"
    file.put(UINT32, **{prefix + key: value for key, value in {
        "image_size": e["image"], "patch_size": e["patch"], "embedding_length": e["hidden"],
        "feed_forward_length": e["inner"], "block_count": e["layers"], "attention__head_count": e["heads"]}.items()})
    file.put(FLOAT32, **{f"{prefix}attention__layer_norm_epsilon": 1e-6})
    if ollama:
        file.put(UINT32, gemma3__vision__num_channels=3, gemma3__mm__tokens_per_image=e["tokens"])
        return
    file.put(STRING, general__architecture="clip", clip__projector_type="gemma3")
    file.put(BOOL, clip__has_vision_encoder=True, clip__use_gelu=True)
    file.put(UINT32, clip__vision__projection_dim=text["hidden"])
    file.put(FLOAT32, clip__vision__image_mean=[0.5] * 3, clip__vision__image_std=[0.5] * 3)


def put_linear(file, name, kind, rows, columns):
    file.matrix(f"{name}.weight", "f16" if kind in LEGACY and columns % 32 else kind, [rows, columns], 1.5)
    file.vector(f"{name}.bias", rows)


def put_encoder(file, kind, text):
    e = ENCODER
    hidden, side = e["hidden"], e["image"] // e["patch"]
    file.matrix("v.patch_embd.weight", "f32", [hidden, 3, e["patch"], e["patch"]], 1.5)
    file.vector("v.patch_embd.bias", hidden)
    file.matrix("v.position_embd.weight", "f32", [side * side, hidden], 0.5 * math.sqrt(hidden))
    for layer in range(e["layers"]):
        name = f"v.blk.{layer}."
        for norm in ("ln1", "ln2"):
            file.vector(f"{name}{norm}.weight", hidden, 1)
            file.vector(f"{name}{norm}.bias", hidden)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            put_linear(file, name + part, kind, hidden, hidden)
        put_linear(file, f"{name}ffn_up", kind, e["inner"], hidden)
        put_linear(file, f"{name}ffn_down", kind, hidden, e["inner"])
    file.vector("v.post_ln.weight", hidden, 1)
    file.vector("v.post_ln.bias", hidden)
    file.matrix("mm.input_projection.weight", kind, [hidden, text["hidden"]], 2 * math.sqrt(text["hidden"] / hidden))
    file.vector("mm.soft_emb_norm.weight", hidden, 1)


# ---- the files of a checkpoint --------------------------------------------------------------------------------------


def write(folder, name):
    """(path of the text file, path of the image encoder's file or None)"""
    spec = CHECKPOINTS[name]
    ollama = spec.get("ollama", False)
    file, path, mmproj = File(name), os.path.join(folder, f"{name}.gguf"), None
    put_text_config(file, spec["shape"], ollama)
    put_tokenizer(file)
    put_text(file, spec)
    if "encoder" in spec:
        encoder = file if ollama else File(name)
        put_encoder_config(encoder, spec["shape"], ollama)
        encoder.names = OLLAMA if ollama else SWAPPED if spec.get("swapped") else {}
        put_encoder(encoder, spec["encoder"], spec["shape"])
        if not ollama:
            mmproj = os.path.join(folder, f"mmproj-{name}.gguf")
            encoder.write(mmproj)
    file.write(path)
    return path, mmproj


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
