"""The optimiser of a run forgets the former vectors of codes that were reset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.conftest import write_photos
from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.fitting.module import Fitting
from training.fitting.training_data import build_training_data
from training.models import MODELS
from training.recipes import load_recipe

SMALL = [
    "preprocessing.size=16", "model.widths=[8]", "model.decoder_widths=[8]", "model.codes=16", "model.code_dim=4",
    "model.pool=4", "model.search_dim=8", "model.update=loss", "model.prior=counts", "batch_size=8", "validation=0.2",
]  # fmt: skip


def test_a_step_of_a_run_leaves_a_code_where_it_was_put(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, _ = read_images(write_photos(tmp_path / "photos", 20))
    recipe = load_recipe("vq-vae", SMALL)
    data = build_training_data(recipe, load_dataset(images, recipe.preprocessing.build(), progress=False))
    model: Any = MODELS["vq-vae"].model(MODELS["vq-vae"].config(**recipe.model_config_values()))
    fitting = Fitting(model, recipe, data.training, data.held_out, data.views).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)

    quantiser = model.quantiser

    def step() -> None:
        optimiser.zero_grad()
        fitting._objective(fitting._views(data.training), data.training, 0)[0].backward()
        fitting.on_before_optimizer_step(optimiser)
        optimiser.step()

    step()
    used = int(quantiser.counts.argmax())
    moments = optimiser.state[quantiser.codebook]["exp_avg"]
    assert float(moments[used].abs().max()) > 0.0
    quantiser.counts[used] = -1e3  # as if nobody had used it for long: the next batch resets it
    step()
    assert bool(quantiser.restarted[used])
    assert float(moments[used].abs().max()) == 0.0
