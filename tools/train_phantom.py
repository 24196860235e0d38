#!/usr/bin/env python3
"""Trains models/phantom, the demonstration checkpoint, from nothing but this repository: 40 minutes on two CPU cores.

    train_phantom.py [--out models/phantom] [--threads 2]

Needs torch and transformers 5. First the vision tower alone learns to find things (heads on its patches and on their
mean, thrown away afterwards); then the whole model learns to answer, on the tokens of the answers only, while the heads
keep the tower from forgetting. Films are drawn as they are needed and none is seen twice: film number n of the training
is seed FIRST_SEED + n, far from the seeds of the examples and of the evaluation.
"""

import argparse
import math
import os
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForImageTextToText

import draw_phantom
import phantom_checkpoint
import phantom_text

FIRST_SEED = 1_000_000
FILMS = 32  # in a step
GRID = phantom_checkpoint.IMAGE_SIZE // phantom_checkpoint.PATCH
PLACES = [None] + [[side, zone] for side in draw_phantom.SIDES for zone in draw_phantom.ZONES]
SIDES = [None, *draw_phantom.SIDES]
MASKS = tuple(name for name in draw_phantom.FINDINGS if name != "heart")
CLASSES = (len(PLACES), len(SIDES), len(SIDES), 2, 4, 2)
IGNORED = -100


def class_indices(labels):
    """One class index for each finding, in the order of draw_phantom.FINDINGS."""
    return (PLACES.index(labels["opacity"]), SIDES.index(labels["effusion"]), SIDES.index(labels["pneumothorax"]),
            int(labels["heart"] == "enlarged"), labels["nodules"], int(labels["line"]))


def patch_targets(masks):
    """[GRID][GRID][len(MASKS)] of 0 and 1: whether some of a finding lies in a patch."""
    layers = []
    for name in MASKS:
        mask = masks[name]
        rows = np.arange(GRID) * mask.shape[0] // GRID
        columns = np.arange(GRID) * mask.shape[1] // GRID
        most = np.maximum.reduceat(np.maximum.reduceat(mask, rows, 0), columns, 1)
        layers.append(most > 0.5)
    return np.stack(layers, -1).astype(np.float32)


def training_film(seed):
    """A film as the model sees it, of a random shape, through the same Pillow resize as a film from disk."""
    rng = np.random.default_rng([seed, 1])
    size = phantom_checkpoint.IMAGE_SIZE
    height = size if rng.random() < 0.94 else int(rng.integers(size, 512))
    width = round(height * float(rng.uniform(0.82, 1.05)))
    pixels, labels, masks = draw_phantom.draw_film(seed, width, height)
    pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.BILINEAR))
    return pixels, labels, patch_targets(masks), rng


class Batches(torch.utils.data.Dataset):
    """Batch number n is a function of n alone, so a run can be repeated."""

    def __init__(self, folder, count, size, first, with_text):
        self.folder, self.count, self.size, self.first, self.with_text = folder, count, size, first, with_text
        self.tokenizer = None

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if self.tokenizer is None:
            torch.set_num_threads(1)
            self.tokenizer = Tokenizer.from_file(os.path.join(self.folder, "tokenizer.json"))
            self.image = ("\n\n<start_of_image>" + "<image_soft_token>" * phantom_checkpoint.IMAGE_TOKENS +
                          "<end_of_image>\n\n")
        films, classes, patches, texts = [], [], [], []
        turns = int(np.random.default_rng([self.first, number]).choice([1, 1, 1, 1, 1, 2, 3]))
        for at in range(self.size):
            pixels, labels, targets, rng = training_film(self.first + number * self.size + at)
            shown = not self.with_text or rng.random() < 0.95
            if shown:
                films.append(pixels)
                classes.append(class_indices(labels))
                patches.append(targets)
            if self.with_text:
                texts.append(phantom_text.conversation(rng, labels if shown else None, turns, self.image))
        batch = {"pixels": torch.from_numpy(np.stack(films)), "classes": torch.tensor(classes),
                 "patches": torch.from_numpy(np.stack(patches))}
        if self.with_text:
            batch.update(self.tokenize(texts))
        return batch

    def tokenize(self, texts):
        """Right-padded ids, and targets that are ids inside answers and IGNORED elsewhere."""
        model, start, end = (self.tokenizer.token_to_id(t) for t in ("model", "<start_of_turn>", "<end_of_turn>"))
        rows = [self.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        targets = torch.full_like(ids, IGNORED)
        for line, row in enumerate(rows):
            ids[line, :len(row)] = torch.tensor(row)
            answering = False
            for at in range(3, len(row)):
                if not answering and row[at - 3] == start and row[at - 2] == model:
                    answering = True
                if answering:
                    targets[line, at] = row[at]
                    answering = row[at] != end
        return {"ids": ids, "targets": targets}


class Heads(torch.nn.Module):
    """What the vision tower is asked directly while it learns; not part of the checkpoint."""

    def __init__(self, width):
        super().__init__()
        self.patch = torch.nn.Linear(width, len(MASKS))
        self.film = torch.nn.Linear(width, sum(CLASSES))

    def forward(self, features, batch):
        """features [films][patches][width] -> (loss, share of films right for each finding)."""
        features = features.float()
        patches = batch["patches"].flatten(1, 2)
        # A nodule is one patch of the 144: with a small weight here it is learned last and slowly.
        loss = 30 * functional.binary_cross_entropy_with_logits(self.patch(features), patches)
        right = []
        for at, logits in enumerate(self.film(features.mean(1)).split(CLASSES, -1)):
            truth = batch["classes"][:, at]
            loss = loss + functional.cross_entropy(logits, truth) / 3
            right.append((logits.argmax(-1) == truth).float().mean())
        return loss, torch.stack(right)


def normalise(pixels):
    """uint8 [films][size][size] -> [films][3][size][size] from -1 to 1."""
    return ((pixels.float() / 255 - 0.5) / 0.5)[:, None].expand(-1, 3, -1, -1)


class Trainer(torch.nn.Module):
    def __init__(self, out, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.out = out
        vocab = phantom_checkpoint.write_files(out)
        self.image_token = vocab["<image_soft_token>"]
        self.model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(out), dtype=torch.float32)
        self.model.set_attn_implementation("eager")  # three times faster here than sdpa, whose backward is slow
        self.tower = self.model.model.vision_tower
        self.heads = Heads(self.model.config.vision_config.hidden_size)
        self.features = None
        self.tower.register_forward_hook(lambda _, __, result: setattr(self, "features", result.last_hidden_state))
        self.begin = time.time()

    def see(self, batch):
        """Loss of the vision tower alone."""
        self.tower(pixel_values=normalise(batch["pixels"]))
        loss, right = self.heads(self.features, batch)
        return loss, {"heads": right}

    def answer(self, batch):
        """Loss of the answers, and a little of the tower's own."""
        types = (batch["ids"] == self.image_token).long()
        hidden = self.model.model(input_ids=batch["ids"], pixel_values=normalise(batch["pixels"]), token_type_ids=types,
                                  attention_mask=torch.ones_like(types), use_cache=False).last_hidden_state
        asked = batch["targets"][:, 1:] != IGNORED
        logits = self.model.lm_head(hidden[:, :-1][asked]).float()
        truth = batch["targets"][:, 1:][asked]
        loss = functional.cross_entropy(logits, truth)
        aside, right = self.heads(self.features, batch)
        wrong = (logits.argmax(-1) != truth).float().mean()
        return 3 * loss + 0.3 * aside, {"text": loss.detach(), "wrong": wrong, "heads": right}

    def run(self, name, loss_of, batches, groups, warm=100):
        """One stage: AdamW with a warm start and a cosine down to nothing."""
        steps = len(batches)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda at: min(1, (at + 1) / warm) * (0.51 + 0.49 * math.cos(math.pi * at / steps)))
        parameters = [p for group in groups for p in group["params"]]
        loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
        mean = {}
        for at, batch in enumerate(loader, 1):
            with torch.autocast("cpu", torch.bfloat16):
                loss, figures = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            for key, value in figures.items():
                mean[key] = value if key not in mean else 0.95 * mean[key] + 0.05 * value
            if at % 50 == 0 or at == steps:
                shown = " ".join(f"{k} {[round(x, 3) for x in v.tolist()] if v.dim() else format(float(v), '.4f')}"
                                 for k, v in mean.items())
                print(f"{name} {at}/{steps} {time.time() - self.begin:.0f} s {shown}", flush=True)
            if at % 250 == 0 or at == steps:
                phantom_checkpoint.write_weights(self.out, self.model.state_dict())


def main():
    parser = argparse.ArgumentParser(description="train models/phantom (synthetic films, not clinical)")
    parser.add_argument("--out", default=os.path.join(os.path.dirname(__file__), "..", "models", "phantom"))
    parser.add_argument("--threads", type=int, default=1, help="more than one only on an idle machine")
    parser.add_argument("--keep", metavar="FILE", help="keep the first stage here; begin from it when it is there")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--see-steps", type=int, default=1300, help="steps of the vision tower alone")
    parser.add_argument("--answer-steps", type=int, default=900, help="steps of the whole model")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trainer = Trainer(args.out, args.seed)
    heads, tower = list(trainer.heads.parameters()), list(trainer.tower.parameters())
    known = set(map(id, tower))
    rest = [p for p in trainer.model.parameters() if id(p) not in known]
    if args.keep and os.path.exists(args.keep):
        trainer.load_state_dict(torch.load(args.keep, weights_only=True))
    else:
        trainer.run("see", trainer.see, Batches(args.out, args.see_steps, FILMS, FIRST_SEED, False),
                    [{"params": tower + heads, "lr": 1e-3}])
        if args.keep:
            torch.save(trainer.state_dict(), args.keep)
    first = FIRST_SEED + FILMS * args.see_steps
    trainer.run("answer", trainer.answer, Batches(args.out, args.answer_steps, FILMS, first, True),
                [{"params": tower + heads, "lr": 3e-4}, {"params": rest, "lr": 1.5e-3}])


if __name__ == "__main__":
    main()
