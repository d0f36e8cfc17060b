"""The terms over two views, against hand-worked cases and torch's distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from training.errors import RecipeError
from training.fitting.examples import Examples
from training.fitting.views import shape_rows
from training.models import MODELS
from training.objectives import Objectives, build_objectives, consistency, info_nce, kl_between
from training.protocols import Loss, Posterior
from training.recipes.objective import Contrastive, Objective


def gaussians(seed: int) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    return Posterior(mean, log_variance)


def as_torch(q: Posterior) -> Independent:
    return Independent(Normal(q.mean, torch.exp(0.5 * q.log_variance)), 1)


def test_the_kl_is_that_of_torch() -> None:
    q, p = gaussians(0), gaussians(1)
    torch.testing.assert_close(kl_between(q, p), kl_divergence(as_torch(q), as_torch(p)))
    torch.testing.assert_close(kl_between(q, q), torch.zeros(5, dtype=torch.float64))


def test_consistency_is_the_mean_of_both_directions_between_the_halves() -> None:
    q, p = gaussians(0), gaussians(1)
    both = Posterior(torch.cat([q.mean, p.mean]), torch.cat([q.log_variance, p.log_variance]))
    expected = 0.5 * (kl_divergence(as_torch(q), as_torch(p)) + kl_divergence(as_torch(p), as_torch(q))).mean()
    torch.testing.assert_close(consistency(both), expected)


def test_info_nce_equals_a_case_worked_by_hand() -> None:
    """Items along two axes, both views alike: the partner has cosine 1, the two others 0."""
    latents = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    expected = -math.log(math.exp(2.0) / (math.exp(2.0) + 2.0))
    assert float(info_nce(latents, torch.tensor([0, 1, 0, 1]), 0.5)) == pytest.approx(expected, rel=1e-6)
    turned = latents[[0, 1, 3, 2]]  # now the partner is at a right angle, one of the others alike
    expected = -math.log(1.0 / (math.exp(2.0) + 2.0))
    assert float(info_nce(turned, torch.tensor([0, 1, 0, 1]), 0.5)) == pytest.approx(expected, rel=1e-6)


def test_other_photos_of_an_item_are_no_negatives_of_it() -> None:
    latents = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    items = torch.tensor([0, 0, 1, 0, 0, 1])
    unit = nn.functional.normalize(latents, dim=1)
    scores = torch.exp(unit @ unit.T)
    terms = []
    for i in range(6):
        j = (i + 3) % 6
        among = [j, *(k for k in range(6) if items[k] != items[i])]
        terms.append(-torch.log(scores[i, j] / scores[i, among].sum()))
    torch.testing.assert_close(info_nce(latents, items, 1.0), torch.stack(terms).mean())


def test_a_batch_of_one_item_has_nothing_to_tell_apart() -> None:
    assert float(info_nce(torch.randn(4, 3), torch.zeros(4, dtype=torch.long), 0.1)) == pytest.approx(0.0, abs=1e-6)


def straight(latents: torch.Tensor) -> Loss:
    return Loss(torch.tensor(7.0), {}, latents, Posterior(latents, torch.zeros_like(latents)))


def views() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2] * 2)


def test_terms_are_weighed_and_told() -> None:
    latents, items = views()
    nothing, scalars = Objectives(Objective(), 0)(straight(latents), items)
    assert float(nothing) == 0.0 and scalars == {}
    settings = Objective(consistency=3.0, contrastive=Contrastive(weight=5.0, temperature=0.2))
    extra, scalars = Objectives(settings, 4)(straight(latents), items)
    torch.testing.assert_close(extra, 3.0 * scalars["consistency"] + 5.0 * scalars["contrastive"])
    torch.testing.assert_close(scalars["contrastive"], info_nce(latents, items, 0.2))
    expected = 0.5 * torch.square(latents[:3] - latents[3:]).sum(dim=1).mean()
    torch.testing.assert_close(scalars["consistency"], expected)


def test_the_projection_head_stands_between_latents_and_cosines() -> None:
    objectives = Objectives(Objective(contrastive=Contrastive(weight=1.0, projection=8)), 4)
    latents, items = views()
    extra, _ = objectives(straight(latents), items)
    torch.testing.assert_close(extra, info_nce(objectives.head(latents), items, 0.1))
    extra.backward()
    assert all(weight.grad is not None for weight in objectives.parameters())


def test_each_part_of_the_latent_is_contrasted_over_its_own_pairs() -> None:
    """The last of 4 pairs is shown in strange colours, and has the last quarter of the latent."""
    settings = Objective(contrastive=Contrastive(weight=3.0, temperature=0.2, shape_share=0.25))
    assert shape_rows(8, 0.25).tolist() == [False, False, False, True] * 2
    latent = torch.randn(8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    items = torch.arange(4).repeat(2)
    looks, shapes = [0, 1, 2, 4, 5, 6], [3, 7]
    extra, scalars = Objectives(settings, 8)(straight(latent), items)
    parts = [info_nce(latent[looks, :6], items[looks], 0.2), info_nce(latent[shapes, 6:], items[shapes], 0.2)]
    torch.testing.assert_close(extra, 3.0 * 0.5 * (parts[0] + parts[1]))
    assert float(scalars["contrastive"]) == pytest.approx(float(extra.detach()) / 3.0)
    (gradient,) = torch.autograd.grad(extra, latent)
    assert float(gradient[looks, 6:].abs().max()) == 0.0 and float(gradient[shapes, :6].abs().max()) == 0.0
    assert float(gradient[looks, :6].abs().min()) > 0.0


def test_a_head_over_both_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="projection must be null with a shape_share"):
        Contrastive(weight=1.0, shape_share=0.5, projection=8)


def test_a_share_that_leaves_a_part_of_the_latent_empty_is_refused() -> None:
    config = MODELS["vae"].config(size=16, widths=(4,), decoder_widths=(4,), latent_dim=8)
    examples = Examples(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.arange(2))
    settings = Objective(contrastive=Contrastive(weight=1.0, shape_share=0.01))
    with pytest.raises(RecipeError, match="shape_share 0.01 leaves a part of the 8 latents empty"):
        build_objectives(settings, MODELS["vae"].model(config), examples)
