#!/usr/bin/env python3
"""Makes the golden vectors of GGUF files, tests/vectors/gguf/*.json: what transformers answers in float32 with the
weights of each file, and how far llama.cpp is from it with the file itself.

    make_gguf_vectors.py --llama-server PROGRAM [--only NAME]...      needs torch, transformers 5, gguf, Pillow 13

The files are those of tests/vectors/gguf_file.py, which writes them again whenever they are needed. The `gguf` package
turns their blocks into float32. llama.cpp reads the prompt and the answer of transformers, so that all its steps can be
compared; it rounds what it multiplies to 8 bits where weights are quantized, so its error is what such a type costs at
best practice. It prepares images another way: what these cost, transformers' own bfloat16 run tells.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib

import gguf
import numpy as np
import torch
import transformers
from transformers import Gemma3ForCausalLM, Gemma3ForConditionalGeneration

import make_vectors
from make_vectors import (EOS, IDS, LINEAR8, MULTIMODAL, ROOT, THETAS, Writer, encode, flat, image, load_processor,
                          run_forced, text, text_config, user, vision_config, write_json, write_processor)

sys.path.insert(0, ROOT)
import gguf_file  # noqa: E402

TOP = 10        # log-probabilities at each step
STEPS = 8       # greedy tokens of a case
MIN_GAP = 0.1   # between the two likeliest tokens at every step
CONVERSATIONS = 6  # short ones and long ones, over which the largest error of llama.cpp is taken
make_vectors.STEPS = STEPS

# ---- checkpoints ----------------------------------------------------------------------------------------------------


def config_of(spec):
    s = spec["shape"]
    scaling = None if spec.get("ollama") else LINEAR8
    of_text = text_config(s["hidden"], s["inner"], s["layers"], s["heads"], s["kv_heads"], s["head_dim"], s["window"],
                          sliding_window_pattern=6, **flat(s["head_dim"], rope_scaling=scaling, **THETAS))
    if "encoder" not in spec:
        return {"architectures": ["Gemma3ForCausalLM"], "eos_token_id": EOS, **of_text}
    e = gguf_file.ENCODER
    return {**MULTIMODAL, "mm_tokens_per_image": e["tokens"], "text_config": of_text,
            "vision_config": vision_config(e["hidden"], e["inner"], e["layers"], e["heads"], e["image"], e["patch"])}


TEXT_NAMES = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
              "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
              "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_q": "self_attn.q_proj",
              "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
              "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
VISION_NAMES = {"ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
                "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1",
                "ffn_down": "mlp.fc2"}
WHOLE_NAMES = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight",
               "v.patch_embd.": "embeddings.patch_embedding.", "v.position_embd.": "embeddings.position_embedding.",
               "v.post_ln.": "post_layernorm.", "mm.input_projection.weight": "mm_input_projection_weight",
               "mm.soft_emb_norm.": "mm_soft_emb_norm."}


def name_in_transformers(name, text_prefix):
    prefix = {"v": "model.vision_tower.", "mm": "model.multi_modal_projector."}.get(name.split(".")[0], text_prefix)
    for old, new in WHOLE_NAMES.items():
        if name.startswith(old):
            return prefix + name.replace(old, new)
    parts = name.removeprefix("v.").split(".")
    assert parts[0] == "blk" and len(parts) == 4, name
    names, layers = (VISION_NAMES, "encoder.layers") if name.startswith("v.") else (TEXT_NAMES, "layers")
    return f"{prefix}{layers}.{parts[1]}.{names[parts[2]]}.{parts[3]}"


def is_gemma_norm(name):
    """Whose weight holds 1 + w."""
    return not name.startswith("v.") and name.endswith("norm.weight")


def read_tensors(paths, spec):
    """The tensors of the files in float32, under their names in transformers."""
    text_prefix = "model.language_model." if "encoder" in spec else "model."
    renamed = gguf_file.OLLAMA if spec.get("ollama") else gguf_file.SWAPPED if spec.get("swapped") else {}
    back = {new: old for old, new in renamed.items()}
    state = {}
    for path in filter(None, paths):
        for tensor in gguf.GGUFReader(path).tensors:
            name = tensor.name
            if name.startswith(("v.", "mm.")):
                name = next((name.replace(new, old) for new, old in back.items() if new in name), name)
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            values = values.reshape([int(n) for n in reversed(tensor.shape)])
            state[name_in_transformers(name, text_prefix)] = torch.from_numpy(values - is_gemma_norm(name))
    return state


def open_models(folder, spec, paths):
    kind = Gemma3ForConditionalGeneration if "encoder" in spec else Gemma3ForCausalLM
    config = kind.config_class.from_pretrained(folder)
    config._attn_implementation = "eager"
    state = read_tensors(paths, spec)
    models = {}
    for dtype in ("float32", "bfloat16"):
        model = kind(config)
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
        models[dtype] = model.to(getattr(torch, dtype)).eval()
    return models


# ---- llama.cpp ------------------------------------------------------------------------------------------------------


class Llama:
    """llama-server with one text file."""

    def __init__(self, program, path):
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [program, "-m", path, "-c", "2048", "--port", str(port), "-t", "2", "--parallel", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            with contextlib.suppress(OSError):
                if json.load(urllib.request.urlopen(f"{self.url}/health"))["status"] == "ok":
                    return
            assert self.process.poll() is None, f"llama-server does not open {path}"
            time.sleep(0.1)
        raise RuntimeError("llama-server does not answer")

    def close(self):
        self.process.kill()
        self.process.wait()

    def logprobs(self, ids):
        """Of all tokens after these ids, before the bias by which the token that is drawn is always a letter: a stop
        token or part of a character would end the answer without them. Nothing is taken from the cache: where a
        conversation came a second time, llama.cpp 0.5.0 gave other probabilities than at first."""
        asked = {"prompt": ids, "n_predict": 1, "n_probs": gguf_file.ROWS, "temperature": 0, "cache_prompt": False,
                 "logit_bias": [[IDS["e"], 1000.0]]}
        request = urllib.request.Request(f"{self.url}/completion", json.dumps(asked).encode(),
                                         {"Content-Type": "application/json"})
        step = json.load(urllib.request.urlopen(request))["completion_probabilities"][0]
        out = torch.full((gguf_file.ROWS,), float("nan"))
        for entry in step["top_logprobs"]:
            out[entry["id"]] = entry["logprob"]
        return out


def measure_llama(server, prompt, ids, best):
    """The errors of llama.cpp [steps][TOP], fed with the answer of transformers."""
    steps = torch.stack([server.logprobs(prompt + ids[:at]) for at in range(len(ids))])
    errors = (steps.gather(1, best.indices) - best.values).abs()
    assert torch.isfinite(errors).all()
    return errors


# ---- cases ----------------------------------------------------------------------------------------------------------


def build_messages(case, writer):
    if case == "short":
        return [user(text(writer.say()))]
    if case == "long":  # beyond every window, and no whole number of panels
        return [{"role": "system", "content": "You are an expert radiologist."}, user(text(writer.say_tokens(151)))]
    if case == "image":
        return [user(image("square56.png"), text(writer.say()))]
    return [user(text(writer.say()), image("tall.png"), image("gray112.png"), text(writer.say()))]


class Oracle:
    """A checkpoint with those who answer for it."""

    def __init__(self, name, spec, processor, models, server):
        self.name, self.spec, self.processor, self.models, self.server = name, spec, processor, models, server

    def ask(self, case, attempt):
        """(messages, inputs, greedy ids, log-probabilities of all tokens, the likeliest)"""
        writer = Writer([zlib.crc32(f"{self.name}/{case}".encode()), attempt],
                        getattr(self.processor, "tokenizer", self.processor))
        messages = build_messages(case, writer)
        inputs = encode(messages, self.processor, {})
        ids, logprobs = make_vectors.run_greedy(self.models["float32"], inputs)
        return messages, inputs, ids, logprobs, torch.topk(logprobs, TOP)

    def largest_llama_error(self):
        """Over several conversations: that of a single one is a matter of luck."""
        worst = 0
        for case in ("short", "long"):
            for attempt in range(CONVERSATIONS):
                _, inputs, ids, _, best = self.ask(case, attempt)
                worst = max(worst, measure_llama(self.server, inputs["input_ids"][0].tolist(), ids, best).max().item())
        return worst

    def make_case(self, case):
        for attempt in range(400):
            messages, inputs, ids, logprobs, best = self.ask(case, attempt)
            gap = (best.values[:, 0] - best.values[:, 1]).min().item()
            if gap >= MIN_GAP and IDS["<image_soft_token>"] not in ids and len(set(ids)) > STEPS // 2:
                break
        else:
            raise RuntimeError(f"{self.name}/{case}: no prompt with a clear greedy path")
        prompt = inputs["input_ids"][0].tolist()
        if "encoder" in self.spec:
            rounded = run_forced(self.models["bfloat16"], inputs, ids)
            yardstick, error = "bf16_error", (rounded - logprobs).gather(1, best.indices).abs().max().item()
        else:
            yardstick, error = "llama_rms", measure_llama(self.server, prompt, ids, best).square().mean().sqrt().item()
        print(f"{self.name}/{case}: {len(prompt)} tokens, attempt {attempt}, gap {gap:.3f}, {yardstick} {error:.4f}",
              flush=True)
        return {"name": case, "messages": messages, "prompt_ids": prompt, "ids": ids, yardstick: round(error, 6),
                "top": [{"ids": i, "logprobs": [round(v, 5) for v in p]}
                        for i, p in zip(best.indices.tolist(), best.values.tolist())]}


def write_golden(name, about, cases):
    """One line for a list of numbers."""
    def line(value):
        return json.dumps(value, ensure_ascii=False)

    rows = []
    for case in cases:
        head = [f'"{key}": {line(value)}' for key, value in case.items() if key != "top"]
        top = ",\n    ".join(map(line, case["top"]))
        rows.append("  {" + ",\n   ".join(head) + ',\n   "top": [\n    ' + top + "]}")
    with open(os.path.join(ROOT, "gguf", f"{name}.json"), "w", encoding="utf-8") as out:
        out.write("{" + ",\n ".join([*(f'"{key}": {line(value)}' for key, value in about.items()), '"cases": [\n']))
        out.write(",\n".join(rows) + "\n]}\n")


def version_of(program):
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return next(line.removeprefix("version: ") for line in (done.stdout + done.stderr).splitlines()
                if line.startswith("version: ")).split(" (build 0")[0]


def make_checkpoint(name, program, folder):
    spec = gguf_file.CHECKPOINTS[name]
    config = {"config": config_of(spec)}
    write_json(folder, "config.json", config["config"])
    write_processor(folder, config)
    paths = gguf_file.write(folder, name)
    about = {"oracle": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
                        "llama.cpp": version_of(program), "run": "float32, eager attention, greedy"},
             "sha256": [gguf_file.digest(path) for path in paths if path]}
    server = None if spec.get("ollama") else Llama(program, paths[0])  # llama.cpp opens no file of Ollama's
    try:
        oracle = Oracle(name, spec, load_processor(folder, config), open_models(folder, spec, paths), server)
        if server:
            about["llama_error"] = round(oracle.largest_llama_error(), 6)
            print(f"{name}: llama_error {about['llama_error']:.4f}", flush=True)
        cases = [oracle.make_case(case) for case in (("image", "images") if "encoder" in spec else ("short", "long"))]
    finally:
        if server:
            server.close()
    write_golden(name, about, cases)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--llama-server", required=True, help="llama.cpp's program")
    parser.add_argument("--only", action="append", choices=list(gguf_file.CHECKPOINTS), help="only this checkpoint")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in options.only or gguf_file.CHECKPOINTS:
        folder = tempfile.mkdtemp()
        try:
            make_checkpoint(name, options.llama_server, folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
