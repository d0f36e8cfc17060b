"""The `-full` recipes: each is valid, and takes a step on a CPU, which is far too slow to train them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.runs import drawn_data
from training.fitting.module import Fitting
from training.fitting.views import ViewMaker
from training.layers.code_prior import SecondStage
from training.models import MODELS
from training.recipes import load_recipe, recipe_names

FULL = [name for name in recipe_names() if name.endswith("-full")]
TOO_SLOW = ("vq-vae-2-full",)  # its prior alone takes 200 GFLOP an image


@pytest.mark.parametrize("name", FULL)
def test_a_full_recipe_is_valid_and_says_where_it_runs(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description.endswith("for one large GPU")


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_full_recipe_takes_a_step(name: str) -> None:
    torch.manual_seed(0)
    recipe = load_recipe(name)
    family = MODELS[recipe.family]
    model: Any = family.model(family.config(**recipe.model_config_values()))
    pairs = recipe.objective.has_two_views
    data = drawn_data(recipe, 4 if pairs else 1, 2)
    take_step(Fitting(model, recipe, data.training, data.held_out, data.views))
    if getattr(model, "has_second_stage", False) and name not in TOO_SLOW:
        second = recipe.for_prior()
        take_step(Fitting(SecondStage(model), second, data.training, data.held_out, ViewMaker(second)))


def take_step(fitting: Fitting) -> None:
    fitting.train()
    learnt = [each for each in fitting.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=1e-3)
    examples = fitting._train
    objective, _ = fitting._objective(fitting._views(examples), examples, 0)
    objective.backward()
    gradients = [each.grad for each in learnt if each.grad is not None]
    assert gradients and all(bool(each.isfinite().all()) for each in gradients)
    before = [each.detach().clone() for each in learnt]
    optimiser.step()
    assert bool(objective.isfinite())
    assert any(not torch.equal(each, old) for each, old in zip(learnt, before, strict=True))
