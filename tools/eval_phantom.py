#!/usr/bin/env python3
"""Scores models/phantom on films it has not seen, through ward and through transformers, and compares their answers.

    eval_phantom.py --ward build/ward              ward alone (needs numpy and Pillow)
    eval_phantom.py --ward build/ward --peer       both, and whether they say the same (needs torch and transformers 5)
    eval_phantom.py --peer                         transformers alone

The films go the way of a user's: drawn at several sizes, written as PNG files, read back and resized. A report of every
film is scored finding by finding, and every fifth film is asked every question as well. A blank image is
scored against the labels of the same films: what guessing is worth. Exits 1 when a finding is right in less than 90 %
of the films or when the two programs disagree.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

import draw_phantom
import phantom_text

REPORT = phantom_text.REPORT_QUESTIONS[0]
SIZES = ((448, 512), (512, 512), (420, 480), (600, 640))
MAX_TOKENS = 80
LOWEST = 0.90


class Ward:
    """The program under test, one process for each question, as a user runs it."""

    name = "ward"

    def __init__(self, program, model, extra):
        self.command = [program, "run", "-m", model, "-n", str(MAX_TOKENS), "--json", *extra]
        self.milliseconds = []

    def ask(self, image, question):
        result = subprocess.run([*self.command, "-i", image, question], capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"eval_phantom: {self.command[0]} failed: {result.stderr.strip()}")
        answer = json.loads(result.stdout)
        self.milliseconds.append(answer["timings"]["total_ms"])
        return answer["text"].strip(), answer["ids"]


class Transformers:
    """The reference: float32, eager attention, Pillow's resize."""

    name = "transformers"

    def __init__(self, model, threads):
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
        torch.set_num_threads(threads)
        self.torch = torch
        self.processor = AutoProcessor.from_pretrained(model, backend="pil", local_files_only=True)
        self.model = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32, local_files_only=True,
                                                                 attn_implementation="eager").eval()
        self.margins = []

    def ask(self, image, question):
        content = [{"type": "image", "path": image}, {"type": "text", "text": question}]
        inputs = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True,
                                                    tokenize=True, return_dict=True, return_tensors="pt")
        with self.torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False, top_k=None, top_p=None,
                                      return_dict_in_generate=True, output_scores=True)
        for scores in out.scores:
            first, second = scores[0].topk(2).values.tolist()
            self.margins.append(first - second)
        ids = out.sequences[0, inputs["input_ids"].shape[1]:].tolist()
        return self.processor.decode(ids, skip_special_tokens=True).strip(), ids


def share_right(reports, truths):
    """The share of films in which each finding of the report is right."""
    read = [phantom_text.parse_report(text) for text in reports]
    return {name: float(np.mean([name in said and said[name] == truth[name] for said, truth in zip(read, truths)]))
            for name in draw_phantom.FINDINGS}


def present(labels, name):
    return labels[name] not in (None, "normal", 0, False)


def table(title, shares):
    print(f"{title}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items()))


def evaluate(subject, films, truths, blank, every):
    """Asks one program everything. Returns ({(image, question): (text, ids)}, lowest share of a finding)."""
    answers = {(path, REPORT): subject.ask(path, REPORT) for path in films}
    shares = share_right([answers[path, REPORT][0] for path in films], truths)
    table(f"{subject.name}, report", shares)
    asked = {}
    for path, truth in list(zip(films, truths))[::every]:
        for group, wordings in phantom_text.QUESTIONS.items():
            answers[path, wordings[0]] = subject.ask(path, wordings[0])
            right = answers[path, wordings[0]][0] == phantom_text.answer(group, truth)
            asked.setdefault(group, []).append(right)
    table(f"{subject.name}, questions", {group: float(np.mean(right)) for group, right in asked.items()})
    answers[blank, REPORT] = subject.ask(blank, REPORT)
    table(f"{subject.name}, blank image", share_right([answers[blank, REPORT][0]] * len(films), truths))
    print(f"{subject.name}, blank image says: {answers[blank, REPORT][0]!r}")
    return answers, min(shares.values())


def main():
    parser = argparse.ArgumentParser(description="score models/phantom on unseen films (synthetic, not clinical)")
    parser.add_argument("--model", default=os.path.join(os.path.dirname(__file__), "..", "models", "phantom"))
    parser.add_argument("--ward", help="the ward program")
    parser.add_argument("--ward-option", action="append", default=[], help="passed on to ward run: --cpu-mask=none")
    parser.add_argument("--peer", action="store_true", help="ask transformers as well")
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first film; training begins at a million")
    parser.add_argument("--question-every", type=int, default=5, metavar="N", help="questions about each N-th film")
    parser.add_argument("--threads", type=int, default=2, help="threads of transformers")
    args = parser.parse_args()
    subjects = [Ward(args.ward, args.model, args.ward_option)] if args.ward else []
    if args.peer:
        subjects.append(Transformers(args.model, args.threads))
    if not subjects:
        parser.error("nothing to ask: give --ward, --peer or both")
    with tempfile.TemporaryDirectory() as folder:
        films, truths = [], []
        for at in range(args.films):
            pixels, labels, _ = draw_phantom.draw_film(args.seed + at, *SIZES[at % len(SIZES)])
            films.append(os.path.join(folder, f"{at}.png"))
            truths.append(labels)
            Image.fromarray(pixels).save(films[-1])
        blank = os.path.join(folder, "blank.png")
        Image.new("L", SIZES[0], 128).save(blank)
        table("films with the finding", {name: float(np.mean([present(truth, name) for truth in truths]))
                                         for name in draw_phantom.FINDINGS})
        results = [evaluate(subject, films, truths, blank, args.question_every) for subject in subjects]
    failed = any(lowest < LOWEST for _, lowest in results)
    for subject in subjects:
        if isinstance(subject, Ward):
            print(f"ward: median {np.median(subject.milliseconds):.0f} ms for an answer")
        else:
            print(f"transformers: smallest lead of a chosen token over the next {min(subject.margins):.2f} (logits)")
    if len(results) == 2:
        mine, theirs = results[0][0], results[1][0]
        texts = sum(mine[key][0] == theirs[key][0] for key in mine)
        ids = sum(mine[key][1] == theirs[key][1] for key in mine)
        print(f"same text {texts} of {len(mine)}, same ids {ids} of {len(mine)}")
        failed = failed or texts < len(mine)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
