"""A training step never waits for a value from the device, so that a GPU always has work queued.

The steps run on PyTorch's `meta` device, whose tensors have shapes and no values: `.item()`, `.cpu()`, `if tensor:`,
`nonzero` or a boolean index raises there.
"""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch

from tests.training.runs import drawn_data, tiny
from training.fitting.averaging import follow
from training.fitting.mining import mine
from training.fitting.module import Fitting
from training.fitting.training_data import TrainingData
from training.fitting.views import ViewMaker
from training.layers.code_prior import SecondStage
from training.models import MODELS
from training.recipes import Recipe, load_recipe

NETS = ["preprocessing.size=16", "model.widths=[8]", "model.decoder_widths=[8]", "batch_size=8", "validation=0.2"]
CODES = [
    *NETS, "model.codes=8", "model.code_dim=4", "model.pool=4", "model.search_dim=8", "model.prior_width=6",
    "model.prior_layers=1", "model.restart=0.5",
]  # fmt: skip
PIXELS = ["preprocessing.size=8", "batch_size=8", "model.width=8"]
ROBUST = [
    "backgrounds.count=8", "backgrounds.hard={candidates: 2}", "backgrounds.rough=1", "progressive={size: 8}",
    "augment={rotate: 10, perspective: 0.2, hue: 0.1, grey: 0.1, blur: 1, erase: 0.3, edges: 0.2, contrast: 0.2}",
    "model.foreground=true", "objective.foreground=4", "objective.clean_target=true", "objective.consistency=1",
    "objective.foreground_weight=0.5", "objective.contrastive={weight: 9, shape_share: 0.5}",
    "objective.prototypes={weight: 1, count: 4}", "objective.small_views={count: 2, size: 8}",
    "objective.teacher={weight: 1}", "objective.mined={start: 1}",
]  # fmt: skip
RECIPES = {
    "vae": tiny("model.free_bits=0.1"),
    "robust-vae": tiny(*ROBUST),
    "ae": load_recipe("ae", [*NETS, "model.latent_dim=4", "model.noise=0.1"]),
    "vq-vae": load_recipe("vq-vae", [*CODES, "model.update=ema"]),
    "vq-vae-2": load_recipe("vq-vae-2", [*CODES, "model.update=loss", "model.top_width=8"]),
    "glow": load_recipe("glow", [*PIXELS, "model.levels=2", "model.steps=1", "model.search_dim=8"]),
    "infovae": load_recipe("infovae", [*NETS, "model.latent_dim=4"]),
    "pixel-cnn++": load_recipe("pixel-cnn++", [*PIXELS, "model.scales=2"]),
    "draw": load_recipe("draw", ["preprocessing.size=16", "model.steps=2", "model.hidden=8", "model.search_dim=8"]),
    "made-mnist": load_recipe("made-mnist", ["preprocessing.size=8", "model.hidden=[8]", "batch_size=8"]),
}


def step(fitting: Fitting, device: str) -> None:
    recipe = fitting.recipe
    examples = fitting._train.take(torch.arange(8)).to(device)
    batch = fitting._views(examples, look=fitting._look, size=recipe.size_shown(0))
    fitting._objective(batch, examples, 1)[0].backward()
    fitting.on_before_optimizer_step(torch.optim.AdamW(fitting.model.parameters()))
    if fitting.objectives.teacher is not None:
        fitting.objectives.teacher.follow(fitting.model, 3)


def fitting_of(model: Any, recipe: Recipe, data: TrainingData) -> Fitting:
    fitting = Fitting(model, recipe, data.training, data.held_out, data.views).train()
    if recipe.objective.mined is not None:
        fitting._mined = mine(model, fitting._views.plain, data.training, recipe.objective.mined, 1, 8)
    return fitting


OFTEN = ("robust-vae", "vq-vae")
CASES = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]


@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_no_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    recipe = RECIPES[name]
    data = drawn_data(recipe, 16)
    family = MODELS[recipe.family]
    model: Any = family.model(family.config(**recipe.model_config_values()))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta device
    check(fitting_of(deepcopy(model), recipe, data))
    if getattr(model, "has_second_stage", False):
        second = recipe.for_prior()
        check(fitting_of(SecondStage(model), second, data._replace(views=ViewMaker(second))))


def check(fitting: Fitting) -> None:
    step(fitting, "cpu")  # the first step may wait: it starts codebooks from the batch
    fitting.to("meta")
    step(fitting, "meta")
    follow(fitting, fitting, 0.9, 1)


def test_waiting_would_be_noticed() -> None:
    x = torch.ones(3, device="meta")
    for wait in (lambda: x.sum().item(), lambda: bool(x.any()), lambda: x[x > 0], lambda: x.nonzero(), x.cpu):
        with pytest.raises((NotImplementedError, RuntimeError)):
            wait()
