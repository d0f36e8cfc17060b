"""Pooling over the item: averages worked by hand, what the guess learns from, and export."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from training.encoder import Encoder
from training.layers.foreground import BIN_SCALE, BINS, LEAST, ForegroundPool
from training.models import MODELS
from training.models.vae import Vae, VaeConfig
from training.objectives import Objectives, foreground_nats
from training.onnx.export import check_agreement, to_onnx
from training.preprocessing import Preprocessing
from training.protocols import Batch
from training.recipes.objective import Objective

SIDE = 16


def config(**changes: Any) -> VaeConfig:
    return VaeConfig(
        size=SIDE, widths=(4, 6, 8), decoder_widths=(8, 6, 4), latent_dim=5, foreground=True, depth=1, **changes
    )


def squares(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Squares of one colour on plain backgrounds of another, and their masks."""
    generator = torch.Generator().manual_seed(seed)
    item, ground = torch.rand(2, count, 3, 1, 1, generator=generator)
    corner = torch.randint(0, SIDE - 8, (count, 2), generator=generator)
    place = torch.arange(SIDE)
    row, column = ((place >= corner[:, axis : axis + 1]) & (place < corner[:, axis : axis + 1] + 8) for axis in (0, 1))
    mask = (row[:, :, None] & column[:, None, :])[:, None].float()
    bright = 0.6 + 0.4 * item  # items are light, grounds dark: what a guess may learn
    return mask * bright + (1 - mask) * 0.4 * ground, mask


def test_features_are_averages_over_the_guess() -> None:
    pool = ForegroundPool(3, (4, 6, 8))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    sides = (8, 4, 2)
    maps = [torch.rand(2, w, s, s, generator=generator) for w, s in zip((4, 6, 8), sides, strict=True)]
    features, logits = pool(x, maps)
    assert features.shape == (2, pool.dim) == (2, BINS + 6)
    assert logits.shape == (2, 1, SIDE // 4, SIDE // 4)
    weight = torch.sigmoid(logits) + LEAST
    middle = (maps[1] * weight).sum((2, 3)) / weight.sum((2, 3))
    torch.testing.assert_close(features[:, BINS:], middle)
    torch.testing.assert_close(features[:, :BINS].sum(dim=1), torch.full((2,), BIN_SCALE))


def test_what_is_surely_background_hardly_counts() -> None:
    pool = ForegroundPool(3, (4, 6))
    with torch.no_grad():
        pool.laterals[0].weight.zero_()
        pool.laterals[0].weight[0, 0] = 1.0  # the guess follows the first channel of the last map
        pool.laterals[0].bias.zero_()
        pool.guess.weight.fill_(0.0)
        pool.guess.weight[0, 0] = 1.0
        pool.guess.bias.zero_()
    coarse = torch.zeros(2, 6, 4, 4)
    coarse[:, 0] = -10.0
    coarse[:, 0, 1:3, 1:3] = 30.0
    one = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[4:12, 4:12] = True
    other[:, :, ~inside] = 1 - one[:, :, ~inside]
    finer = torch.nn.functional.avg_pool2d(torch.cat([one, other]), 2)
    finer = torch.cat([finer, finer[:, :1]], dim=1)
    with torch.no_grad():
        pool.guess.weight.mul_(20.0)  # silu(-10) is about 0: shift it to a clear no
        pool.guess.bias.fill_(-10.0)
        features, _ = pool(torch.cat([one, other]), [finer, coarse])
    assert (features[0] - features[1]).abs().max() < 0.02
    assert (finer[0] - finer[1]).abs().max() > 0.3


@pytest.mark.slow
def test_the_guess_learns_from_masks_and_images_without_one_teach_it_nothing() -> None:
    torch.manual_seed(0)
    vae = Vae(config())
    objectives = Objectives(Objective(foreground=1.0), 0)
    optimiser = torch.optim.Adam(vae.parameters(), lr=5e-3)
    x, mask = squares(96)
    known = mask.clone()
    known[::3] = torch.nan
    losses = []
    for step in range(100):
        batch = Batch(x, x, None, None, known)
        extra, scalars = objectives(vae.loss(batch, step), torch.arange(len(x)), batch.mask)
        optimiser.zero_grad()
        extra.backward()
        optimiser.step()
        losses.append(float(scalars["foreground"]))
    cells = torch.nn.functional.avg_pool2d(mask[~known.isnan().flatten(1).any(dim=1)], 4)
    least = float(torch.distributions.Bernoulli(cells).entropy().sum((1, 2, 3)).mean())  # cells on an edge are shares
    assert losses[-1] - least < 0.2 * (losses[0] - least)
    unseen, truth = squares(32, seed=9)
    guess = vae.eval().extract(unseen).foreground
    assert guess is not None
    cells = torch.nn.functional.avg_pool2d(truth, 4)
    clear = (cells - 0.5).abs() > 0.4
    assert ((guess > 0) == (cells > 0.5))[clear].float().mean() > 0.95

    nowhere = torch.full_like(mask, torch.nan)
    for parameter in vae.parameters():
        parameter.grad = None
    nats = foreground_nats(vae.extract(x).foreground, nowhere)  # type: ignore[arg-type]
    assert float(nats.detach()) == 0.0


def test_the_nats_are_the_cross_entropy_of_the_cells() -> None:
    logits = torch.tensor([[[[2.0, -1.0]]], [[[0.5, 0.0]]]])
    mask = torch.zeros(2, 1, 2, 4)
    mask[0, :, :, :2] = 1.0
    mask[1] = torch.nan
    expected = -torch.log(torch.sigmoid(torch.tensor(2.0))) - torch.log(1 - torch.sigmoid(torch.tensor(-1.0)))
    torch.testing.assert_close(foreground_nats(logits, mask), expected)


@pytest.mark.slow
def test_it_ships_and_exports_as_any_vae() -> None:
    torch.manual_seed(0)
    x, _ = squares(24)
    model, finished = Vae(config()).finish([Batch(x, x)])
    encoder = Encoder(model, family="vae", config=asdict(finished), preprocessing=Preprocessing(SIDE, 3), card={})
    check_agreement(encoder, to_onnx(encoder))


@pytest.mark.parametrize("changes", [{"network": "mlp"}, {"widths": (8,), "decoder_widths": (8,)}])
@pytest.mark.parametrize("family", ["vae", "beta-vae", "cvae"])
def test_it_needs_stages_of_convolutions(family: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="foreground needs a conv network of at least 2 stages"):
        MODELS[family].config(size=SIDE, foreground=True, **changes)
