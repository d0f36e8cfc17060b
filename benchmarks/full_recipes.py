"""Arithmetic of the `-full` recipes: operations of a step, and the hours that they would take on one H100.

    python benchmarks/full_recipes.py

The operations are counted by PyTorch on its `meta` device, which has shapes and no values: convolutions and matrix
products alone, forwards and backwards. Nothing is measured on a GPU; the hours follow from an assumed utilisation.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.layers.code_prior import SecondStage
from training.models import MODELS
from training.protocols import Batch
from training.recipes import Recipe, load_recipe, recipe_names

PEAK = 495e12  # TF32 multiplications and additions per second of an H100 SXM, dense, by its data sheet
UTILISATION = 0.2
IMAGES = 100_000


def flops_of_image(model: Any, recipe: Recipe) -> float:
    """Operations of a training step per image; a multiplication and an addition are two."""
    model.to("meta").train()
    for part in model.modules():
        if hasattr(part, "_has_started"):
            part._has_started = True  # codebooks are not started from a batch without values
    settings = recipe.preprocessing
    x = torch.empty(2, settings.channels, settings.size, settings.size, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.loss(Batch(x, x), 0).objective.backward()
    return counter.get_total_flops() / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=[name for name in recipe_names() if name.endswith("-full")])
    torch.autocast = lambda *_, **__: nullcontext()  # type: ignore[assignment,misc]  # it knows no meta device
    print(f"{IMAGES:,} images, {UTILISATION:.0%} of {PEAK / 1e12:.0f} TFLOP/s\n")
    print("| recipe | million parameters | GFLOP an image | epochs | hours |\n|---|---|---|---|---|")
    for name in parser.parse_args().recipes:
        recipe = load_recipe(name)
        family = MODELS[recipe.family]
        model = family.model(family.config(**recipe.model_config_values()))
        print_row(name, recipe, model, recipe.epochs)
        if getattr(model, "has_second_stage", False):
            print_row(f"{name}, prior", recipe, SecondStage(model), recipe.prior.epochs)


def print_row(name: str, recipe: Recipe, fitted: nn.Module, epochs: int) -> None:
    views = 2 if recipe.objective.has_two_views else 1
    flops = views * flops_of_image(fitted, recipe)
    hours = IMAGES * epochs * flops / (UTILISATION * PEAK) / 3600
    weights = sum(each.numel() for each in fitted.parameters() if each.requires_grad) / 1e6
    print(f"| `{name}` | {weights:.1f} | {flops / 1e9:.1f} | {epochs} | {hours:.1f} |", flush=True)


if __name__ == "__main__":
    main()
