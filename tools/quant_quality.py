#!/usr/bin/env python3
"""How far quantized files are from the checkpoint they were made of: KL divergence and agreement of the likeliest token.

    quant_quality.py REFERENCE MODEL... [--questions 100] [--tokens 2] [--films 0] [--cpu-mask NAME] [--json]

Every model is asked the same questions and answers greedily. The distribution of each answer's first token is compared
over the whole vocabulary with the reference's, and that of later tokens as long as both have said the same. With
--films phantom films are shown too (needs Pillow), half of the questions then being about a film. MODEL may be
FILE.gguf,MMPROJ.gguf. Needs numpy and build/libward.so.
"""

import argparse
import ctypes
import itertools
import json
import os
import sys
import tempfile

import numpy as np

import parity

PARTS = ("the heart", "the left lung", "the right lung", "the mediastinum", "the ribs", "the spine", "the diaphragm",
         "the pleura", "the liver", "the spleen", "the brain", "the knee", "the skin lesion", "the retina")
FORMS = ("Is {} normal?", "What does a radiologist look at first when reading {}?", "Name three findings of {}.",
         "Describe {} in one sentence.", "Which view shows {} best, and why?",
         "A patient of {} years has pain near {}. What is likely?", "Write the impression of a report about {}.",
         "What is the next step after an opacity close to {} was seen on a plain film?")


def make_questions(n):
    pairs = itertools.cycle(itertools.product(FORMS, PARTS))
    return [form.format(*([20 + i % 70] if form.count("{}") == 2 else []), part)
            for i, (form, part) in zip(range(n), pairs)]


def draw_films(n, folder):
    import draw_phantom
    from PIL import Image
    paths = []
    for seed in range(n):
        pixels, _, _ = draw_phantom.draw_film(seed, 448, 512)
        paths.append(os.path.join(folder, f"{seed}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


class Model:
    """A model opened through the public header."""

    def __init__(self, lib, name, cpu_mask):
        self.lib, self.error = lib, parity.Error()
        self.model, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        path, _, mmproj = name.partition(",")
        options = parity.ModelOptions(0, cpu_mask.encode() if cpu_mask else None, b"cpu", mmproj.encode() or None)
        self.check(lib.ward_model_open(ctypes.byref(self.model), path.encode(), ctypes.byref(options),
                                       ctypes.byref(self.error)))
        self.check(lib.ward_session_open(ctypes.byref(self.session), self.model, None, ctypes.byref(self.error)))
        self.logits = []
        self.observe = parity.ObserveFn(self.see)
        lib.ward_session_observe(self.session, self.observe, None)

    def check(self, status):
        if status:
            sys.exit(f"quant_quality.py: ward: {self.error.text.decode()}")

    def see(self, _user, name, _first, rows, cols, data):
        if name == b"text.logits":
            self.logits += list(np.ctypeslib.as_array(data, (rows, cols)).copy())

    def ask(self, question, film, tokens):
        """(ids, log-probabilities of every token at each step)"""
        image, result = ctypes.c_void_p(), parity.Result()
        if film:
            self.check(self.lib.ward_image_open(ctypes.byref(image), film.encode(), None,
                                                ctypes.create_string_buffer(256), ctypes.byref(self.error)))
        parts = ([parity.Part(None, image)] if film else []) + [parity.Part(question.encode(), None)]
        message = parity.Message(b"user", (parity.Part * len(parts))(*parts), len(parts))
        generate = parity.GenerateOptions(max_tokens=tokens, ignore_eos=True, draft_max=-1)
        self.logits = []
        self.check(self.lib.ward_generate(self.session, ctypes.byref(message), 1, ctypes.byref(generate),
                                          ctypes.byref(result), ctypes.byref(self.error)))
        ids = list(result.ids[:result.n_ids])
        self.lib.ward_result_clear(ctypes.byref(result))
        if film:
            self.lib.ward_image_close(ctypes.byref(image))
        return ids, [row - np.logaddexp.reduce(row.astype(np.float64)) for row in self.logits]

    def close(self):
        self.lib.ward_session_close(ctypes.byref(self.session))
        self.lib.ward_model_close(ctypes.byref(self.model))


def compare(reference, answers):
    """The divergence at each step, and whether its likeliest token is the same."""
    divergence, agree = [], []
    for (ids, steps), (other_ids, other_steps) in zip(reference, answers):
        for step, (mine, theirs) in enumerate(zip(steps, other_steps)):
            if ids[:step] != other_ids[:step]:
                break
            divergence.append(float(np.sum(np.exp(mine) * (mine - theirs))))
            agree.append(int(np.argmax(mine)) == int(np.argmax(theirs)))
    return np.array(divergence), np.array(agree)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("reference")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=2, help="of each answer")
    parser.add_argument("--films", type=int, default=0)
    parser.add_argument("--lib", default="build/libward.so")
    parser.add_argument("--cpu-mask")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lib = ctypes.CDLL(os.path.abspath(options.lib))
    questions = make_questions(options.questions)
    rows, reference = [], None
    with tempfile.TemporaryDirectory() as folder:
        films = draw_films(options.films, folder)
        asked = [(question, films[i // 2 % len(films)] if films and i % 2 else None)
                 for i, question in enumerate(questions)]
        for name in (options.reference, *options.models):
            model = Model(lib, name, options.cpu_mask)
            answers = [model.ask(question, film, options.tokens) for question, film in asked]
            model.close()
            if reference is None:
                reference = [(ids, [step.astype(np.float32) for step in steps]) for ids, steps in answers]
                continue
            divergence, agree = compare(reference, answers)
            rows.append({"model": name, "positions": len(divergence), "kl_mean": float(divergence.mean()),
                         "kl_median": float(np.median(divergence)), "kl_p95": float(np.percentile(divergence, 95)),
                         "top1": float(agree.mean())})
            if not options.json:
                print("{model}: KL mean {kl_mean:.5f}, median {kl_median:.5f}, 95 % {kl_p95:.5f}; same likeliest token "
                      "{top1:.1%} of {positions}".format(**rows[-1]), flush=True)
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
