"""Small views: what they are compared with, by brute force, and that full views are only asked by full ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.models import MODELS
from training.objectives import Extras, Objectives, info_nce
from training.objectives.small_views import small_info_nce, small_swapped
from training.protocols import Loss
from training.recipes import load_recipe
from training.recipes.objective import Objective

PAIRS, VIEWS, DIM = 4, 3, 8


def latents(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_the_contrast_of_small_views_equals_brute_force() -> None:
    small, full, items = latents(VIEWS * PAIRS, 0), latents(2 * PAIRS, 1), torch.tensor([0, 1, 0, 2, 0, 1, 0, 3])
    related = torch.zeros(8, 8, dtype=torch.bool)  # the last pair's second photo is lent by another item, 3
    related[3, 1] = related[1, 3] = related[7, 0] = related[0, 7] = True
    terms = []
    for row in range(VIEWS * PAIRS):
        i, turn = row % PAIRS, row // PAIRS % 2
        source = turn * PAIRS + i
        for half in (0, PAIRS):
            others = [j for j in range(PAIRS) if items[half + j] != items[source] and not related[source, half + j]]
            keys = full[[half + i, *(half + j for j in others if j != i)]]
            cosine = nn.functional.cosine_similarity(small[row][None], keys)
            terms.append(-torch.log_softmax(cosine / 0.3, dim=0)[0])
    torch.testing.assert_close(small_info_nce(small, full, items, 0.3, related), torch.stack(terms).mean())


def objective(**more: object) -> Objective:
    asked = {"contrastive": {"weight": 5.0, "temperature": 0.2}, "small_views": {"count": VIEWS}, **more}
    return Objective.model_validate(asked)


def test_a_term_is_the_mean_over_full_and_small_views() -> None:
    small, full, items = latents(VIEWS * PAIRS, 0), latents(2 * PAIRS, 1), torch.arange(PAIRS).repeat(2)
    objectives = Objectives(objective(prototypes={"weight": 2.0, "count": 3}), DIM)
    _, scalars = objectives(Loss(torch.tensor(0.0), {}, full), items, extras=Extras(small=small))
    contrast = info_nce(full, items, 0.2) + VIEWS * small_info_nce(small, full, items, 0.2)
    torch.testing.assert_close(scalars["contrastive"], contrast.detach() / (1 + VIEWS))
    prototypes = objectives.prototypes[0]
    assigned = prototypes(full) + VIEWS * small_swapped(small, full, prototypes)
    torch.testing.assert_close(scalars["prototypes"], assigned.detach() / (1 + VIEWS))


@pytest.mark.parametrize("term", ["contrast", "prototypes"])
def test_small_views_are_asked_and_full_views_answer_without_a_gradient(term: str) -> None:
    small, full = latents(VIEWS * PAIRS, 0), latents(2 * PAIRS, 1)
    if term == "contrast":
        nats = small_info_nce(small, full, torch.arange(PAIRS).repeat(2), 0.2)
    else:
        nats = small_swapped(small, full, Objectives(objective(prototypes={"weight": 2.0}), DIM).prototypes[0])
    nats.backward()
    assert full.grad is None
    assert small.grad is not None and float(small.grad.abs().sum(dim=1).min()) > 0


def test_small_views_of_pairs_in_strange_colours_teach_shapes_alone() -> None:
    """Of 4 pairs the last is in strange colours; the last quarter of the latent holds its shapes."""
    small, full = latents(VIEWS * PAIRS, 0), latents(2 * PAIRS, 1)
    asked = objective(contrastive={"weight": 1.0, "shape_share": 0.25}, prototypes={"weight": 1.0, "count": 3})
    loss = Loss(torch.tensor(0.0), {}, full)
    Objectives(asked, DIM)(loss, torch.arange(PAIRS).repeat(2), extras=Extras(small=small))[0].backward()
    assert small.grad is not None
    strange = torch.arange(VIEWS * PAIRS) % PAIRS == PAIRS - 1
    assert float(small.grad[~strange, 6:].abs().max()) == 0.0 and float(small.grad[strange, :6].abs().max()) == 0.0
    assert float(small.grad[~strange, :6].abs().max()) > 0.0 and float(small.grad[strange, 6:].abs().max()) > 0.0


@pytest.mark.parametrize("family", ["ae", "vae", "beta-vae", "cvae", "pixel-vae"])
@pytest.mark.parametrize("foreground", [False, True])
def test_convolutional_encoders_take_smaller_and_larger_pictures(family: str, foreground: bool) -> None:
    config = MODELS[family].config
    more = {"classes": 3} if family == "cvae" else {}
    if foreground and family != "ae":
        more["foreground"] = True
    torch.manual_seed(0)
    made = config(size=16, widths=(8, 8), decoder_widths=(8, 8), latent_dim=4, **more)
    model = MODELS[family].model(made).train()
    assert made.size_multiple == 4
    for side in (8, 16, 24):
        model.zero_grad()
        found = model.latent(torch.rand(3, 3, side, side))
        assert found.shape == (3, 4)
        found.square().sum().backward()
        weight = next(model.encoder.parameters())
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0


def test_networks_made_for_one_size_say_so() -> None:
    assert MODELS["vae"].config(network="mlp", size=16).size_multiple is None
    assert MODELS["vq-vae"].config().size_multiple is None
    recipe = load_recipe("vae", ["model.network=mlp", "objective.contrastive.weight=1", "objective.small_views={}"])
    assert recipe.objective.small_views is not None and recipe.objective.small_views.size is None


def test_an_encoder_learns_where_parts_belong() -> None:
    """From parts alone: full views answer without a gradient, and the term still falls."""
    torch.manual_seed(0)
    config = MODELS["ae"].config(size=16, widths=(8, 8), decoder_widths=(8, 8), latent_dim=DIM)
    model, items = MODELS["ae"].model(config).train(), torch.arange(PAIRS).repeat(2)
    pictures = torch.rand(PAIRS, 3, 16, 16).repeat(2, 1, 1, 1)
    parts = torch.cat([pictures[:PAIRS, :, :8, :8], pictures[:PAIRS, :, 8:, 8:]])
    optimiser = torch.optim.Adam(model.encoder.parameters(), lr=0.01)
    values = []
    for _ in range(60):
        nats = small_info_nce(model.latent(parts), model.latent(pictures), items, 0.2)
        optimiser.zero_grad()
        nats.backward()
        optimiser.step()
        values.append(float(nats.detach()))
    assert values[-1] < 0.5 * values[0]
