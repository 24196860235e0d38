#!/usr/bin/env python3
"""What others reach on the card of this machine, for tools/card_report.py: card_peers.py CHECKPOINT IMAGE [--tokens N]
[--runs N] [--device cuda|cpu] MEASURE...

Prints a JSON object a line, {"name": ..., "...": figures}, each as soon as it is known, so that a limit of time keeps what
was measured. Needs PyTorch; for the last three transformers. Nothing is downloaded.

    ceilings    torch.matmul of two bf16 matrices of 8,192 x 8,192, and a copy of 1 GiB within the card
    encoder     the image encoder and its projector
    pipeline    the image-text-to-text pipeline in bf16, as the first user's page has it
    static      generate with SDPA and a static cache, which transformers compiles
"""

import argparse
import json
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch  # noqa: E402

QUESTION = "Describe this X-ray."


def say(name, **figures):
    print(json.dumps({"name": name, **figures}), flush=True)


class Machine:
    """Timing on a device, whose work is waited for."""

    def __init__(self, name):
        self.name = name

    def wait(self):
        if self.name == "cuda":
            torch.cuda.synchronize()

    def milliseconds(self, work, runs, warm_ups):
        """Of each run after the warm-ups."""
        times = []
        for run in range(warm_ups + runs):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            if run >= warm_ups:
                times.append((time.perf_counter() - start) * 1e3)
        return times


def ceilings(machine, _options):
    side, size = (8192, 1 << 30) if machine.name == "cuda" else (512, 1 << 24)
    a, b = (torch.randn(side, side, device=machine.name).to(torch.bfloat16) for _ in range(2))
    times = machine.milliseconds(lambda: torch.matmul(a, b), 20, 5)
    say("matmul", version=torch.__version__, side=side, tflops=2 * side ** 3 / min(times) / 1e9,
        mean_tflops=2 * side ** 3 * len(times) / sum(times) / 1e9)
    source, to = (torch.ones(size, dtype=torch.uint8, device=machine.name) for _ in range(2))
    times = machine.milliseconds(lambda: to.copy_(source), 20, 5)
    say("copy", bytes=size, gbs=2 * size / min(times) / 1e6)


class Checkpoint:
    """The checkpoint, opened once."""

    def __init__(self, machine, options):
        from PIL import Image
        import transformers
        start = time.perf_counter()
        self.options, self.version = options, transformers.__version__
        self.pipe = transformers.pipeline("image-text-to-text", model=options.checkpoint, dtype=torch.bfloat16, device=machine.name)
        self.image = Image.open(options.image).convert("RGB")
        self.messages = [{"role": "user", "content": [{"type": "image", "image": self.image}, {"type": "text", "text": QUESTION}]}]
        say("opened", ms=(time.perf_counter() - start) * 1e3, version=self.version,
            attention=getattr(self.pipe.model.config, "_attn_implementation", None))

    def inputs(self):
        return self.pipe.processor.apply_chat_template(self.messages, add_generation_prompt=True, tokenize=True, return_dict=True,
                                                       return_tensors="pt").to(self.pipe.model.device, dtype=torch.bfloat16)

    def fixed(self):
        """Options of generate for an answer of so many tokens, greedy."""
        return {"max_new_tokens": self.options.tokens, "min_new_tokens": self.options.tokens, "do_sample": False}


def encoder(machine, options, checkpoint):
    pixels, model = checkpoint.inputs()["pixel_values"], checkpoint.pipe.model.model
    with torch.inference_mode():
        times = machine.milliseconds(lambda: model.get_image_features(pixels), options.runs, 2)
    say("encoder", version=checkpoint.version, runs_ms=times, mean_ms=sum(times) / len(times))


def pipeline(machine, options, checkpoint):
    times = machine.milliseconds(lambda: checkpoint.pipe(text=checkpoint.messages, generate_kwargs=checkpoint.fixed()), options.runs, 1)
    say("pipeline", version=checkpoint.version, tokens=options.tokens, runs_ms=times, mean_ms=sum(times) / len(times))


def static(machine, options, checkpoint):
    """The image's decoding is left out: what is timed is less than the pipeline's."""
    inputs, model = checkpoint.inputs(), checkpoint.pipe.model
    model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        times = machine.milliseconds(lambda: model.generate(**inputs, cache_implementation="static", **checkpoint.fixed()),
                                     options.runs, 2)
    say("static", version=checkpoint.version, tokens=options.tokens, runs_ms=times, mean_ms=sum(times) / len(times),
        prompt_tokens=int(inputs["input_ids"].shape[1]))


MEASURES = {"ceilings": ceilings, "encoder": encoder, "pipeline": pipeline, "static": static}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("measures", nargs="+", choices=list(MEASURES))
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    machine, checkpoint = Machine(options.device), None
    for name in options.measures:
        if name == "ceilings":
            ceilings(machine, options)
            continue
        checkpoint = checkpoint or Checkpoint(machine, options)
        MEASURES[name](machine, options, checkpoint)


if __name__ == "__main__":
    main()
