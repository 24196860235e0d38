#!/usr/bin/env python3
"""Makes a checkpoint of random weights whose values are spread as trained ones are, to measure quantizers on.

    heavy_tails.py SHAPES OUT        SHAPES: a checkpoint in Hugging Face's layout, whose tensors' names and shapes are taken

Weights drawn from one normal distribution flatter every quantizer: a block of them has no outlier. Here each matrix has
input channels of very different size (log-normal, one in a hundred eight times as large), rows of different size, and
single values with heavier tails than normal; the final norm is set so that answers are about as sure as a language
model's. It remains a proxy: no claim about the quality of trained weights follows from it. Needs torch and safetensors.
"""

import json
import os
import shutil
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

LOGIT_SPREAD = 3.0  # standard deviation of the logits at a position
BRANCH = 0.25  # what a layer adds, in parts of the embedding: with 1 random layers amplify any error beyond comparison


def matrix(rows, cols, deviation):
    """Normal values with the spread of channels, rows and single values that trained matrices have."""
    channel = torch.exp(0.4 * torch.randn(cols))
    channel[torch.rand(cols) < 0.01] *= 8
    row = torch.exp(0.25 * torch.randn(rows, 1))
    values = torch.randn(rows, cols)
    values = values * (1 + 0.15 * values.abs() * torch.rand(rows, cols)) * row * channel
    return values * (deviation / values.pow(2).mean().sqrt())


def draw(name, tensor):
    if tensor.dim() == 2 and min(tensor.shape) > 1 and "position" not in name:
        return matrix(*tensor.shape, deviation=float(tensor.float().std()))
    if name.endswith("model.norm.weight"):  # the head multiplies by rows of the embedding's deviation, near 1
        return torch.randn(tensor.shape) * 0.2 + LOGIT_SPREAD - 1
    if tensor.dim() == 1 and name.endswith("norm.weight"):  # Gemma's, which multiply by 1 + w
        return torch.exp(0.3 * torch.randn(tensor.shape)) * (BRANCH if "layernorm" in name and "post_" in name else 1) - 1
    return tensor.float()


def main():
    shapes, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(3)
    for name in sorted(os.listdir(shapes)):
        if not name.endswith(".safetensors"):
            shutil.copy(os.path.join(shapes, name), out)
            continue
        tensors = {}
        with safe_open(os.path.join(shapes, name), "pt") as file:
            for key in file.keys():
                tensors[key] = draw(key, file.get_tensor(key)).to(torch.bfloat16)
        save_file(tensors, os.path.join(out, name), metadata={"format": "pt"})
        print(json.dumps({"file": name, "tensors": len(tensors)}), flush=True)


if __name__ == "__main__":
    main()
