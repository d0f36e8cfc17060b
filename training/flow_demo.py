"""`nitamono demo-flow`: fits a flow to the double moon and writes its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from training.double_moon import double_moon, log_density
from training.errors import RecipeError
from training.files import publish_file
from training.fitting.density import DensitySettings, fit_density
from training.fitting.pictures import encode_gif, encode_png
from training.flow_pictures import (
    SAMPLE,
    SIDE,
    Pixels,
    Window,
    beside,
    draw_density,
    draw_points,
    forward_frames,
    inverse_frames,
    two_moons,
)
from training.layers.flow import PermutationKind
from training.layers.vector_flow import VectorFlow, VectorFlowConfig

HELD_OUT = 20_000  # points
SHOWN, MOVING = 3000, 1200  # points of a picture, and of an animation
MILLISECONDS = 90  # per frame


class MoonPlan(NamedTuple):
    """The options of `nitamono demo-flow`."""

    steps: int
    hidden: int
    permutation: str
    actnorm: bool
    epochs: int
    points: int
    seed: int


def run_demo(plan: MoonPlan, out: Path, *, advance: Callable[[int], None]) -> dict[str, Any]:
    """Fit the flow and write the pictures into a folder; returns the figures.

    Args:
        advance: called after each epoch with 1.

    Raises:
        RecipeError: an option is not valid; the message names it.
    """
    try:
        config = VectorFlowConfig(
            steps=plan.steps,
            hidden=(plan.hidden, plan.hidden),
            permutation=cast(PermutationKind, plan.permutation),
            actnorm=plan.actnorm,
        )
    except ValueError as exc:
        raise RecipeError(str(exc)) from exc
    noise = torch.Generator().manual_seed(plan.seed)
    train, held_out = double_moon(plan.points, noise).x, double_moon(HELD_OUT, noise).x
    torch.manual_seed(plan.seed)
    flow = VectorFlow(config)
    fit = fit_density(flow, train, held_out, DensitySettings(epochs=plan.epochs, seed=plan.seed), advance)
    written = {name: publish_file(out / name, data) for name, data in _pictures(flow, noise).items()}
    return {
        "nats": fit.nats,
        "true_nats": -float(log_density(held_out).double().mean()),
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "curve": fit.curve,
        "files": {name: str(path) for name, path in written.items()},
    }


def _pictures(flow: VectorFlow, noise: torch.Generator) -> dict[str, bytes]:
    """The files by name."""
    shown = double_moon(SHOWN, noise)
    few = double_moon(MOVING, noise)
    return {
        "forward.gif": encode_gif(forward_frames(flow, few.x, few.moon), MILLISECONDS),
        "inverse.gif": encode_gif(inverse_frames(flow, torch.randn(MOVING, 2, generator=noise)), MILLISECONDS),
        "density.png": encode_png(_densities(flow, Window(shown.x))),
        "samples.png": encode_png(_samples(flow, shown.x, shown.moon, noise)),
    }


@torch.no_grad()
def _densities(flow: VectorFlow, window: Window) -> Pixels:
    grid = window.grid(SIDE)
    true, learnt = log_density(grid), flow.log_prob(grid)
    highest = float(true.exp().max())
    return beside([draw_density(true, highest, "true density"), draw_density(learnt, highest, "the flow's density")])


def _samples(flow: VectorFlow, x: torch.Tensor, moon: torch.Tensor, noise: torch.Generator) -> Pixels:
    window, drawn = Window(x), flow.sample(len(x), noise)
    samples = draw_points(drawn, [SAMPLE] * len(drawn), window, "samples of the flow")
    return beside([two_moons(x, moon, window, "true points"), samples])
