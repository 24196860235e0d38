#!/usr/bin/env python3
"""Draws synthetic "phantom" chest films: shapes that look a little like a chest X-ray.

The films teach and test models/phantom, the demonstration checkpoint. They show no patient, come from no patient, and
say nothing about how well any model reads a real film. A film is a function of its seed alone.

    draw_phantom.py --seed 7 --count 3 --out films      writes films/film-7.png ... and films/labels.json
    draw_phantom.py --examples examples                 writes the committed examples

Geometry is in units of the film's height; x is 0 at the midline and grows to the right of the picture, which is the
patient's left, as on a real film seen from the front.
"""

import argparse
import json
import os

import numpy as np
from PIL import Image

SIDES = ("right", "left")
ZONES = ("upper", "middle", "lower")
FINDINGS = ("opacity", "effusion", "pneumothorax", "heart", "nodules", "line")
ZONE_Y = {"upper": 0.25, "middle": 0.44, "lower": 0.62}
NOTHING = {"opacity": None, "effusion": None, "pneumothorax": None, "heart": "normal", "nodules": 0, "line": False}
# The committed examples: file name -> (seed, findings). Little grain keeps the files small.
EXAMPLES = {
    "phantom-normal.png": (9001, {}),
    "phantom-effusion.png": (9002, {"effusion": "left", "heart": "enlarged", "line": True}),
    "phantom-pneumothorax.png": (9012, {"pneumothorax": "right", "opacity": ["left", "lower"]}),
    "phantom-nodules.jpg": (9021, {"nodules": 3, "opacity": ["right", "upper"], "effusion": "left", "line": True}),
}
EXAMPLE_SIZE, EXAMPLE_GRAIN = (336, 384), 0.3
GLYPH_R = ("11110", "10001", "10001", "11110", "10100", "10010", "10001")


def sign(side):
    """-1 for the patient's right, which is the left of the picture."""
    return -1.0 if side == "right" else 1.0


def step(distance, softness):
    """0 to 1 as distance goes from -softness to +softness, without a corner."""
    t = np.minimum(np.maximum(distance * (0.5 / softness) + 0.5, 0), 1)
    return t * t * (3 - 2 * t)


def pick_labels(rng):
    """Every finding in about half the films, independently; one film in sixteen shows nothing at all."""
    labels = dict(NOTHING)
    if rng.random() < 1 / 16:
        return labels
    draw = rng.random(6) < 0.53
    if draw[1]:
        labels["effusion"] = SIDES[rng.integers(2)]
    if draw[0]:
        side = SIDES[rng.integers(2)]
        # An opacity behind an effusion cannot be told from it, so that place is not used.
        zones = ZONES[:2] if labels["effusion"] == side else ZONES
        labels["opacity"] = [side, zones[rng.integers(len(zones))]]
    if draw[2]:
        labels["pneumothorax"] = SIDES[rng.integers(2)]
    if draw[3]:
        labels["heart"] = "enlarged"
    if draw[4]:
        labels["nodules"] = int(rng.integers(1, 4))
    labels["line"] = bool(draw[5])
    return labels


class Anatomy:
    """The numbers of one film that its findings must agree on."""

    def __init__(self, rng, labels):
        def uniform(low, high):
            return float(rng.uniform(low, high))

        self.lung_x = uniform(0.205, 0.222)
        self.lung_rx = uniform(0.158, 0.170)
        self.lung_y, self.lung_ry = uniform(0.455, 0.475), uniform(0.345, 0.365)
        self.dome = {"right": uniform(0.690, 0.710), "left": uniform(0.715, 0.735)}
        enlarged = labels["heart"] == "enlarged"
        self.heart = (uniform(0.035, 0.055), uniform(0.60, 0.63),
                      uniform(0.178, 0.195) if enlarged else uniform(0.105, 0.120),
                      uniform(0.150, 0.165) if enlarged else uniform(0.120, 0.135))
        self.level = uniform(0.585, 0.635)
        self.line_r = uniform(0.74, 0.80)
        self.opacity = None
        if labels["opacity"]:
            side, zone = labels["opacity"]
            x = uniform(0.250, 0.285) if zone == "lower" else uniform(0.190, 0.245)
            self.opacity = (sign(side) * x, ZONE_Y[zone] + uniform(-0.03, 0.03), uniform(0.075, 0.100))
        self.nodules = self.place_nodules(rng, labels)

    def lung_radius(self, x, y, side):
        """1 on the rim of the lung, less inside."""
        narrow = 0.74 + 0.26 * step(np.asarray(y, np.float32) - 0.30, 0.18)
        u = (x - sign(side) * self.lung_x) / (self.lung_rx * narrow)
        v = (y - self.lung_y) / self.lung_ry
        return np.sqrt(u * u + v * v)

    def place_nodules(self, rng, labels):
        """Nodules lie in the open lung: apart from one another and from what could hide them."""
        placed, tries = [], 0
        while len(placed) < labels["nodules"]:
            tries += 1
            if tries % 500 == 0:  # the first ones left no room for the others
                placed.clear()
            side = SIDES[rng.integers(2)]
            x, y = sign(side) * rng.uniform(0.12, 0.33), rng.uniform(0.20, 0.66)
            rim = 0.55 if labels["pneumothorax"] == side else 0.78
            cx, cy, rx, ry = self.heart
            floor = self.level - 0.05 if labels["effusion"] == side else self.dome[side] - 0.04
            if self.lung_radius(x, y, side) > rim or y > floor or np.hypot((x - cx) / rx, (y - cy) / ry) < 1.35:
                continue
            if self.opacity and np.hypot(x - self.opacity[0], y - self.opacity[1]) < self.opacity[2] + 0.07:
                continue
            if any(np.hypot(x - a, y - b) < 0.10 for a, b, _ in placed):
                continue
            placed.append((float(x), float(y), float(rng.uniform(0.028, 0.034))))
        return placed


def smooth_noise(rng, cells, width, height):
    """Noise of unit deviation whose features are 1/cells of the film."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.BICUBIC))


def draw_bones(film, x, y, lungs, rng):
    """Ribs and clavicles, in place; ribs arch down and outwards and show best over the lung."""
    ax = np.abs(x)
    spacing = rng.uniform(0.082, 0.092)
    phase = (y - 0.55 * ax + 1.6 * ax * ax + rng.uniform(0, spacing)) / spacing
    ribs = step(np.cos(2 * np.pi * phase) - 0.25, 0.30) * step(ax - 0.06, 0.02) * step(0.385 - ax, 0.012)
    film += ribs * (0.035 + 0.05 * lungs) * step(0.80 - y, 0.06)
    slope = rng.uniform(-0.30, -0.20)
    clavicle = step(0.012 - np.abs(y - 0.175 - slope * (ax - 0.05)), 0.006)
    film += 0.10 * clavicle * step(ax - 0.045, 0.01) * step(0.34 - ax, 0.01)


def draw_marker(film, x, y):
    """The letter R that a technician lays beside the patient's right shoulder."""
    column = np.floor((x + 0.375) / 0.009).astype(int)
    row = np.floor((y - 0.045) / 0.009).astype(int)
    inside = (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
    glyph = np.array([[int(c) for c in line] for line in GLYPH_R], bool)
    film[inside & glyph[np.clip(row, 0, 6), np.clip(column, 0, 4)]] = 0.93


def draw_film(seed, width=448, height=512, labels=None, grain=1.0):
    """Draws one film: with the labels given, or with labels that its seed picks.

    Returns (pixels, labels, masks): pixels uint8 [height][width]; labels a dict over FINDINGS; masks a dict of float32
    [height][width] from 0 to 1 that say where each visible finding lies (what a vision tower can learn from); of a
    nodule only the middle, so that a sum over the mask is their number.
    """
    rng = np.random.default_rng(seed)
    labels = labels or pick_labels(rng)
    body = Anatomy(rng, labels)
    aspect = width / height
    # Small moves of the patient in front of the plate, then a squeeze so that the thorax fits a narrow film.
    scale, shift_x, shift_y, turn = rng.uniform(0.95, 1.05), *rng.uniform(-0.02, 0.02, 2), rng.uniform(-0.04, 0.04)
    scale *= min(1.0, aspect / 0.86)
    gx = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / height - aspect / 2 - np.float32(shift_x)
    gy = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - 0.5 - np.float32(shift_y)
    x = (gx - np.float32(turn) * gy) / np.float32(scale)
    y = (gy + np.float32(turn) * gx) / np.float32(scale) + np.float32(0.5)
    ax = np.abs(x)
    masks = {name: np.zeros((height, width), np.float32) for name in FINDINGS if name != "heart"}

    torso = step(0.41 + 0.05 * step(y - 0.75, 0.2) - ax - 0.9 * np.maximum(0, 0.14 - y), 0.012)
    film = np.float32(0.04) + torso * (np.float32(0.50) + 0.06 * step(y - 0.75, 0.08))
    lungs = np.zeros_like(film)
    for side in SIDES:
        s = sign(side)
        radius = body.lung_radius(x, y, side)
        dome = body.dome[side] + 2.2 * (x - s * body.lung_x * 0.9) ** 2
        lung = step((1 - radius) * body.lung_rx, 0.010) * step(dome - y, 0.008)
        if labels["pneumothorax"] == side:
            lateral = step((x - s * body.lung_x) * s + 0.05, 0.04) * step(0.60 - y, 0.05) * lung
            film -= 0.08 * lateral * step(radius - body.line_r, 0.01)
            rim = step(0.0055 - np.abs(radius - body.line_r) * body.lung_rx, 0.0035) * lateral
            masks["pneumothorax"] = rim
        if labels["effusion"] == side:
            outward = np.clip((x * s - 0.08) / 0.28, 0, 1)
            fluid = lung * step(y - (body.level - 0.09 * outward ** 3), 0.010)
            masks["effusion"] = fluid
            masks["pneumothorax"] = masks["pneumothorax"] * (1 - fluid)
            lung = lung * (1 - fluid)
        lungs = np.maximum(lungs, lung)
    film -= 0.33 * lungs
    film += 0.022 * lungs * smooth_noise(rng, 28, width, height) + 0.012 * smooth_noise(rng, 9, width, height)
    for s in (-1.0, 1.0):
        film += 0.10 * np.exp(-((x - s * 0.10) / 0.05) ** 2 - ((y - 0.44) / 0.09) ** 2)
    draw_bones(film, x, y, lungs, rng)

    middle = step(0.052 + 0.03 * step(0.13 - y, 0.08) - ax, 0.012) * torso
    cx, cy, rx, ry = body.heart
    tilt = (x - cx) * 0.25
    heart = step((1 - np.sqrt(((x - cx) / rx) ** 2 + ((y - cy - tilt) / ry) ** 2)) * rx, 0.010) * step(0.80 - y, 0.02)
    film += np.maximum(middle, heart) * (0.66 - film)
    film += 0.03 * step(0.040 - ax, 0.008) * step(np.cos(2 * np.pi * y / 0.052) + 0.5, 0.4) * torso
    film -= 0.16 * step(0.013 - ax, 0.006) * step(0.36 - y, 0.03) * torso
    film += masks["effusion"] * (0.62 - film)
    film += masks["pneumothorax"] * 0.30
    if body.opacity:
        ox, oy, size = body.opacity
        blob = np.exp(-np.square((np.square(x - ox) + np.square(y - oy)) / size ** 2))
        masks["opacity"] = blob
        film += 0.32 * blob * (1 + 0.12 * smooth_noise(rng, 40, width, height))
    for nx, ny, size in body.nodules:
        distance = np.square(x - nx) + np.square(y - ny)
        film += 0.42 * step(size - np.sqrt(distance), 0.004)
        masks["nodules"].flat[distance.argmin()] = 1
    if labels["line"]:
        start = sign(SIDES[rng.integers(2)]) * rng.uniform(0.11, 0.16)
        end, tip = rng.uniform(-0.040, -0.025), rng.uniform(0.44, 0.52)
        path = end + (start - end) * (1 - step(y - 0.16, 0.16))
        tube = step(0.0055 - np.abs(x - path) * 0.8, 0.003) * step(tip - y, 0.004)
        masks["line"] = tube
        film += tube * (0.95 - film)
    draw_marker(film, x, y)

    film = np.clip(film, 0, 1) ** np.float32(rng.uniform(0.90, 1.12))
    # Coarser grain on a large film, because resizing it to what the model sees averages the grain away.
    grain = np.float32(grain * 0.018 * max(1.0, height / 168) ** 0.7)
    noise = rng.standard_normal((height, width), np.float32) * grain
    film = film * np.float32(rng.uniform(0.94, 1.06)) + np.float32(rng.uniform(-0.02, 0.02)) + noise
    return (np.clip(film, 0, 1) * 255 + 0.5).astype(np.uint8), labels, masks


def save_films(seeds, folder, width, height):
    """Writes film-SEED.png for every seed and labels.json beside them."""
    os.makedirs(folder, exist_ok=True)
    index = {}
    for seed in seeds:
        pixels, labels, _ = draw_film(seed, width, height)
        Image.fromarray(pixels).save(os.path.join(folder, f"film-{seed}.png"), optimize=True)
        index[f"film-{seed}.png"] = labels
    with open(os.path.join(folder, "labels.json"), "w", encoding="utf-8") as out:
        json.dump(index, out, indent=1)
        out.write("\n")


def save_examples(folder):
    for name, (seed, findings) in EXAMPLES.items():
        pixels, _, _ = draw_film(seed, *EXAMPLE_SIZE, {**NOTHING, **findings}, EXAMPLE_GRAIN)
        options = {"quality": 88} if name.endswith(".jpg") else {"optimize": True}
        Image.fromarray(pixels).save(os.path.join(folder, name), **options)


def main():
    parser = argparse.ArgumentParser(description="draw synthetic phantom chest films (no patient, not clinical)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first film")
    parser.add_argument("--count", type=int, default=1, help="number of films")
    parser.add_argument("--size", default="448x512", help="WIDTHxHEIGHT of the films")
    parser.add_argument("--out", default="films", help="folder to write")
    parser.add_argument("--examples", metavar="FOLDER", help="write the committed examples instead")
    args = parser.parse_args()
    if args.examples:
        save_examples(args.examples)
        return
    width, height = (int(part) for part in args.size.split("x"))
    save_films(range(args.seed, args.seed + args.count), args.out, width, height)


if __name__ == "__main__":
    main()
