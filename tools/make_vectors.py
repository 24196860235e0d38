#!/usr/bin/env python3
"""Makes the golden vectors in tests/vectors: small random checkpoints, images, and transformers' answers in float32.

    make_vectors.py [--only NAME]...        needs torch, transformers 5, safetensors, Pillow 13

Each checkpoint has another shape, another layout of config.json, other tensor names or another dtype. The answers come
from transformers itself: its processor (the Pillow backend) makes the prompts; its model, read in float32 from the very
files that are committed, with eager attention, generates greedily. Beside them stands the error of transformers' own
bfloat16 run, the yardstick for whatever multiplies in bfloat16. Everything is seeded: a rerun writes the same again.
"""

import argparse
import json
import os
import shutil
import string
import sys
import zlib

import numpy as np
import PIL
import torch
import transformers
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import (AutoTokenizer, Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil,
                          Gemma3Processor)

from phantom_checkpoint import CHAT_TEMPLATE, learn_merges, write_json, write_tokenizer

ROOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "vectors")
TOP = 20           # log-probabilities at each step
STEPS = 16         # greedy tokens of a case
MIN_GAP = 0.03     # between the two likeliest tokens at every step, so that rounding cannot turn the greedy path
VOCABULARY = 448   # rows of the embedding; the tokenizer has fewer tokens, as in the original

SENTENCES = """The heart is of normal size and the lungs are clear.
There is a small effusion on the left and an opacity in the right lower zone.
No pneumothorax is seen; the line ends above the carina.
Compare this film with the prior one and say what has changed.
Where is the nodule, and how large is it in millimetres?
Describe this X-ray in two sentences, please.
The patient is 64 years old and has had a cough for three weeks.
Both costophrenic angles are sharp. The mediastinum is not widened.
What is the most likely diagnosis, and what should be done next?
Old rib fractures on the right side, healed; degenerative changes of the spine.""".split("\n")

# ---- tokenizer ------------------------------------------------------------------------------------------------------


def make_tokenizer():
    """tokenizer.json in Gemma 3's form: byte fallback, runs of newlines and spaces, added tokens, 60 merges."""
    head = "<pad> <eos> <bos> <unk> <mask> <unused94> <unused95> <start_of_turn> <end_of_turn>".split()
    newlines = ["\n" * n for n in range(1, 32)]
    spaces = ["\u2581" * n for n in range(2, 9)]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    merges = learn_merges(SENTENCES, 60)
    learned = list(dict.fromkeys("".join(pair) for pair in merges))
    letters = ["\u2581", *string.ascii_letters, *string.digits, *".,;:?!-'()", "\u00e9", "\u00b5"]
    images = ["<start_of_image>", "<end_of_image>"]
    order = head + newlines + spaces + data + learned + letters + images + ["<image_soft_token>"]
    vocab = {piece: number for number, piece in enumerate(order)}
    assert len(vocab) == len(order) < VOCABULARY - 4
    runs = [["\u2581" * left, "\u2581" * (n - left)] for n in range(8, 1, -1) for left in range(n - 1, 0, -1)]
    special = {"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<image_soft_token>"}
    added = [{"id": vocab[piece], "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": piece in special}
             for piece in head + newlines + spaces + images + ["<image_soft_token>"]]
    bos, bos2 = ({"SpecialToken": {"id": "<bos>", "type_id": n}} for n in (0, 1))
    first, second = ({"Sequence": {"id": name, "type_id": n}} for n, name in enumerate("AB"))
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, first], "pair": [bos, first, bos2, second],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [vocab["<bos>"]], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": runs + [list(pair) for pair in merges]},
    }


TOKENIZER = make_tokenizer()
IDS = TOKENIZER["model"]["vocab"]
EOS = [IDS["<eos>"], IDS["<end_of_turn>"]]

# ---- images ---------------------------------------------------------------------------------------------------------


IMAGES = [("square56.png", "RGB", 56, 56), ("gray112.png", "L", 112, 112), ("wide.png", "RGB", 90, 41),
          ("tall.png", "RGB", 61, 170), ("tiny.png", "RGB", 9, 7), ("alpha.png", "RGBA", 64, 48)]


def make_images():
    """Films of several sizes and kinds. The passes of resizing tall.png do not commute: Pillow 13 goes down first."""
    folder = os.path.join(ROOT, "films")
    os.makedirs(folder, exist_ok=True)
    for name, mode, width, height in IMAGES:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        y, x = np.mgrid[0:height, 0:width]
        bands = len(mode)
        planes = [127 + 100 * np.sin(rng.uniform(1, 9) * x / width + rng.uniform(1, 9) * y / height + rng.uniform(0, 6))
                  for _ in range(bands)]
        film = Image.fromarray(np.stack(planes, -1).squeeze().astype(np.uint8))
        draw = ImageDraw.Draw(film)
        for _ in range(5):
            left, top = rng.integers(0, width), rng.integers(0, height)
            colour = tuple(int(v) for v in rng.integers(0, 256, bands))
            draw.ellipse([left, top, left + width // 5, top + height // 6], fill=colour if bands > 1 else colour[0])
        film.save(os.path.join(folder, name), optimize=True)


# ---- checkpoints ----------------------------------------------------------------------------------------------------

MULTIMODAL = {"boi_token_index": IDS["<start_of_image>"], "eoi_token_index": IDS["<end_of_image>"],
              "image_token_index": IDS["<image_soft_token>"], "eos_token_id": EOS, "model_type": "gemma3",
              "architectures": ["Gemma3ForConditionalGeneration"]}
LINEAR8 = {"factor": 8.0, "rope_type": "linear"}


THETAS = {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0}  # Gemma 3's


def text_config(hidden, intermediate, layers, heads, kv_heads, head_dim, window, **more):
    return {"model_type": "gemma3_text", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "head_dim": head_dim, "sliding_window": window, "vocab_size": VOCABULARY, **more}


def vision_config(hidden, intermediate, layers, heads, image, patch):
    return {"model_type": "siglip_vision_model", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads, "image_size": image, "patch_size": patch,
            "vision_use_head": False}


def flat(query_scale, **more):
    """The fields that transformers 4.5x writes besides the shapes."""
    return {"attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None,
            "cache_implementation": "hybrid", "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
            "initializer_range": 0.02, "max_position_embeddings": 4096, "query_pre_attn_scalar": query_scale,
            "rms_norm_eps": 1e-06, "use_cache": True, **more}


# name -> what is special about it, the config as the file has it, how the tensors are named, their dtype, the cases
CHECKPOINTS = {
    "short": {
        "about": "the short config of Gemma 3 4B: defaults for eps, thetas, pattern 6 and query scale 256; one file",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 4,
                   "text_config": text_config(32, 37, 6, 4, 2, 16, 24, rope_scaling=LINEAR8),
                   "vision_config": vision_config(24, 40, 2, 3, 56, 14)},
        "names": "published", "cases": "text image two system unicode edge"},
    "flat": {
        "about": "flat config of transformers 4.5x, head_dim 20 with hidden 48 / 3 heads, 1 kv head, pattern 2, "
                 "2 shards",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 4, "torch_dtype": "bfloat16", "transformers_version": "4.51.3",
                   "text_config": text_config(48, 71, 4, 3, 1, 20, 16, sliding_window_pattern=2, torch_dtype="bfloat16",
                                              **flat(20, rope_scaling=LINEAR8, **THETAS)),
                   "vision_config": vision_config(24, 37, 3, 3, 56, 14)},
        "names": "published", "shards": 2, "cases": "text image two middle turns system long straddle"},
    "hybrid": {
        "about": "hybrid config (rope_parameters without thetas beside flat thetas), layer_types, names of 4.52-4.57",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 16, "dtype": "bfloat16", "transformers_version": "4.57.3",
                   "text_config": text_config(32, 41, 4, 8, 2, 8, 40, dtype="bfloat16", _sliding_window_pattern=6,
                                              layer_types=["full_attention", "sliding_attention", "full_attention",
                                                           "sliding_attention"],
                                              rope_theta=50000.0, rope_local_base_freq=700.0,
                                              rope_parameters={"full_attention": LINEAR8,
                                                               "sliding_attention": {"rope_type": "default"}},
                                              **flat(8, rope_scaling=None)),
                   "vision_config": vision_config(36, 50, 2, 2, 112, 14)},
        "names": "prefixed", "cases": "text image two turns straddle"},
    "v5": {
        "about": "as transformers 5 saves it: config, names, processor_config.json; kv heads = heads; own thetas",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 4,
                   "text_config": text_config(40, 61, 4, 5, 5, 8, 32, query_pre_attn_scalar=11,
                                              max_position_embeddings=2048,
                                              layer_types=["sliding_attention"] * 3 + ["full_attention"],
                                              rope_parameters={
                                                  "full_attention": {**LINEAR8, "factor": 4.0, "rope_theta": 200000.0},
                                                  "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}),
                   "vision_config": vision_config(32, 45, 2, 4, 48, 12)},
        "names": "saved", "cases": "text image middle turns long"},
    "window": {
        "about": "sliding window of 5, smaller than an image block of 16 (the window cuts it on the left); pattern 3",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 16,
                   "text_config": text_config(32, 38, 6, 4, 1, 12, 5, sliding_window_pattern=3,
                                              **flat(12, rope_scaling=LINEAR8, **THETAS)),
                   "vision_config": vision_config(24, 32, 2, 2, 64, 8)},
        "names": "published", "cases": "text image two middle turns edge straddle long"},
    "text": {
        "about": "text only, as transformers 5 saves it: softcapped logits, an output head of its own",
        "config": {"architectures": ["Gemma3ForCausalLM"], "eos_token_id": EOS, "tie_word_embeddings": False,
                   **text_config(32, 45, 6, 4, 2, 10, 24, query_pre_attn_scalar=20, final_logit_softcapping=7.0)},
        "names": "saved", "cases": "text chat system unicode long"},
    "tied": {
        "about": "text only with flat config, tied head, names of the published 1B (model.layers...)",
        "config": {"architectures": ["Gemma3ForCausalLM"], "eos_token_id": EOS, "torch_dtype": "bfloat16",
                   **text_config(48, 59, 2, 4, 1, 16, 512, sliding_window_pattern=2,
                                 **flat(16, rope_scaling=None, **THETAS))},
        "names": "saved", "config_as_given": True, "cases": "text chat long"},
    "f32": {
        "about": "float32 weights, all layers sliding, no rope scaling, head_dim 6 (three rotated pairs), odd sizes",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 4,
                   "text_config": text_config(20, 33, 4, 2, 1, 6, 12, layer_types=["sliding_attention"] * 4,
                                              **flat(6, **THETAS, rope_scaling=None)),
                   "vision_config": vision_config(18, 21, 2, 3, 40, 10)},
        "names": "published", "dtype": "float32", "cases": "text image turns"},
    "f16": {
        "about": "float16 weights, all layers global, one vision layer, 64 tokens an image (no pooling), 8 heads",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 64,
                   "text_config": text_config(32, 57, 3, 8, 4, 10, 16, layer_types=["full_attention"] * 3,
                                              **flat(10, rope_scaling=LINEAR8, **THETAS)),
                   "vision_config": vision_config(20, 55, 1, 5, 112, 14)},
        "names": "prefixed", "dtype": "float16", "cases": "text image two turns"},
    "untied": {
        "about": "multimodal with an output head of its own; intermediate sizes odd; window 100",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 4, "tie_word_embeddings": False,
                   "text_config": text_config(24, 43, 4, 3, 3, 14, 100, sliding_window_pattern=3,
                                              tie_word_embeddings=False,
                                              **flat(14, rope_scaling=LINEAR8, **THETAS)),
                   "vision_config": vision_config(24, 29, 2, 3, 28, 7)},
        "names": "published", "cases": "text image middle straddle"},
    "pt": {
        "about": "a pretrained checkpoint: no chat template, the text is continued",
        "config": {**MULTIMODAL, "mm_tokens_per_image": 4,
                   "text_config": text_config(32, 45, 4, 4, 2, 8, 20, sliding_window_pattern=2,
                                              **flat(8, rope_scaling=LINEAR8, **THETAS)),
                   "vision_config": vision_config(24, 40, 2, 3, 28, 7)},
        "names": "published", "template": False, "cases": "text image long"},
}


def random_tensor(checkpoint, name, shape, config):
    """float32 values with the spread of a trained model: activations and logits of order one, norms that matter."""
    rng = np.random.default_rng(zlib.crc32(f"{checkpoint}/{name}".encode()))
    normal = rng.standard_normal(shape).astype(np.float32)
    vision = "vision_tower" in name
    if name.endswith("embed_tokens.weight") or name.endswith("lm_head.weight"):
        return normal * 2 / np.sqrt(shape[1])
    if name.endswith("norm.weight") and name.removesuffix(".weight").split(".")[-2] in ("model", "language_model"):
        # 1 + w is +-1: the last norm breaks the likeness of input and output, or every token would repeat itself.
        return normal * 0.2 - 2 * rng.integers(0, 2, shape).astype(np.float32)
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return normal * 0.2 + 0.5
    if name.endswith("mm_input_projection_weight"):
        return normal * 2 / np.sqrt(shape[0])
    if vision and len(shape) == 1:
        return normal * 0.2 + (1 if "norm" in name and name.endswith("weight") else 0)
    if name.endswith("position_embedding.weight"):
        return normal * 0.5
    if len(shape) == 1:
        return normal * 0.2
    return normal * (1.5 if vision else 1) / np.sqrt(np.prod(shape[1:]))


def file_name(name, names):
    """The name of a tensor of transformers 5 in the file."""
    if names == "published":
        for old, new in (("model.language_model.", "language_model.model."), ("lm_head", "language_model.lm_head"),
                         ("model.vision_tower.", "vision_tower.vision_model."),
                         ("model.multi_modal_projector.", "multi_modal_projector.")):
            name = name.replace(old, new)
        return name
    return name.replace("model.vision_tower.", "model.vision_tower.vision_model.")


def write_weights(folder, tensors, shards):
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        return
    where = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        first, last = (n * len(names) // shards for n in (number, number + 1))
        part = {name: tensors[name] for name in names[first:last]}
        save_file(part, os.path.join(folder, file), metadata={"format": "pt"})
        where.update(dict.fromkeys(part, file))
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(folder, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def write_processor(folder, spec):
    """The files of the tokenizer and the processor, as published."""
    write_tokenizer(folder, TOKENIZER)
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    write_json(folder, "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, **names, "bos_token": "<bos>",
        "clean_up_tokenization_spaces": False, "eos_token": "<eos>", "extra_special_tokens": names,
        "model_max_length": 4096, "pad_token": "<pad>", "padding_side": "left", "processor_class": "Gemma3Processor",
        "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>",
        "use_default_system_prompt": False})
    if spec.get("template", True):
        with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as out:
            out.write(CHAT_TEMPLATE)
    write_json(folder, "generation_config.json", {"bos_token_id": IDS["<bos>"], "do_sample": True, "eos_token_id": EOS,
                                                  "pad_token_id": 0, "top_k": 64, "top_p": 0.95})
    if "vision_config" in spec["config"]:
        size, tokens = spec["config"]["vision_config"]["image_size"], spec["config"]["mm_tokens_per_image"]
        write_json(folder, "preprocessor_config.json", {
            "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_rescale": True,
            "do_resize": True, "image_mean": [0.5] * 3, "image_processor_type": "Gemma3ImageProcessor",
            "image_seq_length": tokens, "image_std": [0.5] * 3, "pan_and_scan_max_num_crops": None,
            "pan_and_scan_min_crop_size": None, "pan_and_scan_min_ratio_to_activate": None,
            "processor_class": "Gemma3Processor", "resample": 2, "rescale_factor": 1 / 255, "size": {"height": size, "width": size}})
        write_json(folder, "processor_config.json", {"image_seq_length": tokens, "processor_class": "Gemma3Processor"})


def load_processor(folder, spec):
    """transformers' processor over the Pillow backend, or the tokenizer of a text-only checkpoint."""
    if "vision_config" not in spec["config"]:
        return AutoTokenizer.from_pretrained(folder)
    processor = Gemma3Processor.from_pretrained(folder, backend="pil")
    assert isinstance(processor.image_processor, Gemma3ImageProcessorPil), type(processor.image_processor)
    return processor


def write_checkpoint(name, spec):
    folder = os.path.join(ROOT, "models", name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    write_json(folder, "config.json", spec["config"])
    write_processor(folder, spec)
    multimodal = "vision_config" in spec["config"]
    kind = Gemma3ForConditionalGeneration if multimodal else Gemma3ForCausalLM
    model = kind(kind.config_class.from_pretrained(folder))
    dtype = getattr(torch, spec.get("dtype", "bfloat16"))
    tied = model.config.tie_word_embeddings
    state = {n: torch.from_numpy(random_tensor(name, n, tuple(t.shape), model.config)).to(dtype)
             for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}
    if spec["names"] == "saved":
        model.load_state_dict(state, strict=not tied)
        model.to(dtype).save_pretrained(folder)
        if spec.get("config_as_given"):
            write_json(folder, "config.json", spec["config"])
        elif multimodal:
            processor = load_processor(folder, spec)
            os.remove(os.path.join(folder, "preprocessor_config.json"))  # it is inside processor_config.json
            processor.save_pretrained(folder)
    else:
        tensors = {file_name(n, spec["names"]): t.contiguous() for n, t in state.items()}
        write_weights(folder, tensors, spec.get("shards", 1))
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    return folder


# ---- cases ----------------------------------------------------------------------------------------------------------


class Writer:
    """Random sentences, and lengths in tokens."""

    def __init__(self, seed, tokenizer):
        self.rng = np.random.default_rng(seed)
        self.tokenizer = tokenizer

    def say(self, sentences=1):
        words = " ".join(SENTENCES[self.rng.integers(len(SENTENCES))] for _ in range(sentences)).split(" ")
        self.rng.shuffle(words)
        return " ".join(words)

    def tokens(self, text):
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def say_tokens(self, n):
        """Text of exactly n tokens: words, then full stops, each a token of its own."""
        text = ""
        while self.tokens(text) < n - 12:
            text += self.say().split(" ")[self.rng.integers(5)] + " "
        text += "."
        while self.tokens(text) < n:
            text += "."
        assert self.tokens(text) == n
        return text


def image(name):
    return {"type": "image_url", "image_url": {"url": f"films/{name}"}}


def text(words):
    return {"type": "text", "text": words}


def user(*parts):
    return {"role": "user", "content": list(parts)}


def build_messages(case, writer, spec):
    """The conversation of a case in OpenAI's form; paths of images are relative to tests/vectors."""
    say = writer.say
    window = spec["config"].get("text_config", spec["config"])["sliding_window"]
    # Where the first image token lies without text before it: after bos, the opening of the turn, newlines and mark.
    first = 1 + writer.tokens("<start_of_turn>user\n") + 2
    if case == "text":
        return [user(text(say()))]
    if case == "unicode":
        odd = "  Caf\u00e9 \u00b5m \u2265 3\u00a0mm\t(na\u00efve)\n\n\n\n- \u80ba   \U0001fac1 x\n"
        return [{"role": "user", "content": odd + say() + "   "}]
    if case == "chat":
        return [{"role": "assistant" if turn % 2 else "user", "content": say(1 + turn % 2)} for turn in range(5)]
    if case == "system":
        question = [image("wide.png"), text(say())] if "vision_config" in spec["config"] else [text(say())]
        return [{"role": "system", "content": "You are an expert radiologist. "}, user(*question)]
    if case == "long":
        return [user(text(writer.say_tokens(730)))]
    if case == "image":
        return [user(image("square56.png"), text(say()))]
    if case == "two":
        return [user(image("tall.png"), image("gray112.png"), text(say()))]
    if case == "middle":
        return [user(text(say()), image("alpha.png"), text(say()))]
    if case == "turns":
        return [user(image("tiny.png"), text(say())), {"role": "assistant", "content": say(2)},
                user(text(say()), image("tall.png"))]
    if case == "edge":
        # The image ends where a window ends: its last token is the last of the ring.
        tokens = spec["config"]["mm_tokens_per_image"]
        length = -(first + tokens) % window + window * (1 + 40 // window)
        return [user(text(writer.say_tokens(length)), image("wide.png"))]
    if case == "straddle":
        # Image tokens on both sides of position 512.
        return [user(text(writer.say_tokens(510 - first)), image("gray112.png"), text(say(4)), image("wide.png"),
                     text(say()))]
    raise ValueError(case)


def encode(messages, processor, spec):
    """What transformers makes of the conversation: input_ids, and for images pixel_values and token_type_ids."""
    converted = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [part if part["type"] == "text" else
                       {"type": "image", "path": os.path.join(ROOT, part["image_url"]["url"])} for part in content]
        converted.append({"role": message["role"], "content": content})
    if not spec.get("template", True):
        words = "".join(p["text"] if p["type"] == "text" else "<start_of_image>" for p in converted[0]["content"])
        images = [Image.open(p["path"]).convert("RGB") for p in converted[0]["content"] if p["type"] == "image"]
        return processor(text=words, images=images or None, return_tensors="pt")
    return processor.apply_chat_template(converted, add_generation_prompt=True, tokenize=True, return_dict=True,
                                         return_tensors="pt")


def run_forced(model, inputs, ids):
    """float32 log-probabilities [len(ids)][vocab] of the answer, in one pass over prompt and answer."""
    answer = torch.tensor([ids[:-1]])
    fed = {"input_ids": torch.cat([inputs["input_ids"], answer], 1)}
    if "pixel_values" in inputs:
        fed["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    if "token_type_ids" in inputs:
        fed["token_type_ids"] = torch.cat([inputs["token_type_ids"], torch.zeros_like(answer)], 1)
    logits = model(**fed, use_cache=False, logits_to_keep=len(ids)).logits[0]
    return torch.log_softmax(logits.float(), -1)


def run_greedy(model, inputs):
    """(ids, float32 log-probabilities [steps][vocab]) of transformers' own generate, without a stop."""
    fed = {k: inputs[k] for k in ("input_ids", "attention_mask", "pixel_values", "token_type_ids") if k in inputs}
    out = model.generate(**fed, max_new_tokens=STEPS, do_sample=False, top_k=None, top_p=None, eos_token_id=-1,
                         return_dict_in_generate=True, output_logits=True)
    ids = out.sequences[0, inputs["input_ids"].shape[1]:].tolist()
    return ids, torch.log_softmax(torch.cat(out.logits).float(), -1)


def make_case(name, number, case, spec, processor, models):
    tokenizer = getattr(processor, "tokenizer", processor)
    for attempt in range(400):
        writer = Writer([zlib.crc32(name.encode()), number, attempt], tokenizer)
        messages = build_messages(case, writer, spec)
        inputs = encode(messages, processor, spec)
        ids, logprobs = run_greedy(models["float32"], inputs)
        best = torch.topk(logprobs, TOP)
        gap = (best.values[:, 0] - best.values[:, 1]).min().item()
        if gap >= MIN_GAP and IDS["<image_soft_token>"] not in ids and len(set(ids)) > 5:
            break
    else:
        raise RuntimeError(f"{name}/{case}: no prompt with a clear greedy path")
    forced = run_forced(models["float32"], inputs, ids)
    assert (forced - logprobs).abs().max() < 2e-4, (name, case, (forced - logprobs).abs().max())
    rounded = run_forced(models["bfloat16"], inputs, ids)
    error = (rounded - logprobs).gather(1, best.indices).abs().max().item()
    print(f"{name}/{case}: {inputs['input_ids'].shape[1]} tokens, attempt {attempt}, gap {gap:.3f}, bf16 {error:.4f}")
    return {"name": case, "messages": messages, "prompt_ids": inputs["input_ids"][0].tolist(), "ids": ids,
            "bf16_error": round(error, 6),
            "top": [{"ids": i, "logprobs": [round(v, 6) for v in p]}
                    for i, p in zip(best.indices.tolist(), best.values.tolist())]}


def write_golden(folder, spec, cases):
    """golden.json, one line for a list of numbers."""
    def line(value):
        return json.dumps(value, ensure_ascii=False)

    rows = []
    for case in cases:
        top = ",\n    ".join(line(step) for step in case["top"])
        head = [f'"{key}": {line(case[key])}' for key in ("name", "messages", "prompt_ids", "ids", "bf16_error")]
        rows.append("  {" + ",\n   ".join(head) + ',\n   "top": [\n    ' + top + "]}")
    oracle = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
              "pillow": PIL.__version__, "run": "float32, eager attention, greedy",
              "resize": "Gemma3ImageProcessorPil: Pillow's bilinear in the order of passes of Pillow 13"}
    with open(os.path.join(folder, "golden.json"), "w", encoding="utf-8") as out:
        out.write(f'{{"about": {line(spec["about"])},\n "oracle": {line(oracle)},\n "cases": [\n')
        out.write(",\n".join(rows) + "\n]}\n")


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=sorted(CHECKPOINTS), help="only this checkpoint")
    only = parser.parse_args().only
    if int(PIL.__version__.split(".")[0]) < 13:
        sys.exit("make_vectors.py: needs Pillow 13, whose bilinear resize is the reference")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    make_images()
    for name, spec in CHECKPOINTS.items():
        if only and name not in only:
            continue
        folder = write_checkpoint(name, spec)
        kind = Gemma3ForConditionalGeneration if "vision_config" in spec["config"] else Gemma3ForCausalLM
        models = {dtype: kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()
                  for dtype in ("float32", "bfloat16")}
        processor = load_processor(folder, spec)
        write_golden(folder, spec, [make_case(name, number, case, spec, processor, models)
                                    for number, case in enumerate(spec["cases"].split())])


if __name__ == "__main__":
    main()
