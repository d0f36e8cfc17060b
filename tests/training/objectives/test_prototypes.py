"""Prototypes: balanced assignments by Sinkhorn and Knopp, and the swapped prediction of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from training.objectives import Objectives
from training.objectives.prototypes import Prototypes, sinkhorn
from training.protocols import Loss
from training.recipes.objective import Contrastive, Objective
from training.recipes.objective import Prototypes as Settings


def cosines(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 1.0


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 24), columns=st.integers(2, 12), seed=st.integers(0, 99), epsilon=st.floats(0.3, 2.0))
def test_assignments_are_balanced(rows: int, columns: int, seed: int, epsilon: float) -> None:
    q = sinkhorn(cosines(rows, columns, seed), epsilon, 100)
    torch.testing.assert_close(q.sum(dim=1), torch.full((rows,), 1 / rows, dtype=q.dtype))
    torch.testing.assert_close(q.sum(dim=0), torch.full((columns,), 1 / columns, dtype=q.dtype), atol=1e-4, rtol=1e-3)
    assert bool((q >= 0).all())


@settings(max_examples=40, deadline=None)
@given(epsilon=st.floats(1e-6, 0.05), seed=st.integers(0, 99), iterations=st.integers(1, 5))
def test_a_small_epsilon_neither_overflows_nor_unbalances_the_rows(epsilon: float, seed: int, iterations: int) -> None:
    q = sinkhorn(cosines(9, 5, seed).float(), epsilon, iterations)
    assert bool(q.isfinite().all())
    torch.testing.assert_close(q.sum(dim=1), torch.full((9,), 1 / 9), atol=1e-4, rtol=1e-3)


def test_two_rows_and_two_columns_by_hand() -> None:
    """Of exp(scores) = [[a, b], [b, a]] both marginals are balanced at once: each row is (a, b) / (a + b) / 2."""
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    a, b = math.exp(2.0), 1.0
    expected = torch.tensor([[a, b], [b, a]]) / (a + b) / 2.0
    torch.testing.assert_close(sinkhorn(scores, 0.5, 1), expected)


def test_balance_divides_what_all_rows_like_best() -> None:
    """Both rows are nearer to the first prototype; the one that minds less is given to the second."""
    scores = torch.tensor([[0.9, 0.0], [0.9, 0.8]])
    assert sinkhorn(scores, 0.01, 50).argmax(dim=1).tolist() == [0, 1]


def test_it_is_the_solution_of_equation_3() -> None:
    """No other balanced assignment has a larger Tr(Q' C' Z) + epsilon H(Q)."""
    scores, epsilon = cosines(4, 3, 0), 0.5
    best = sinkhorn(scores, epsilon, 200)
    corner = torch.zeros(4, 3, dtype=torch.float64)
    corner[0, 0] = corner[1, 1] = 1.0
    corner[0, 1] = corner[1, 0] = -1.0

    def value(q: Tensor) -> float:
        return float((q * scores).sum() - epsilon * (q * q.log()).sum())

    for step in (-0.01, -0.001, 0.001, 0.01):
        assert value(best + step * corner) < value(best)


def made(dim: int = 4, **changes: float) -> Prototypes:
    torch.manual_seed(0)
    return Prototypes(Settings.model_validate({"weight": 1.0, "count": 3, **changes}), dim)


def test_the_loss_is_the_swapped_cross_entropy() -> None:
    prototypes = made(temperature=0.2)
    latents = torch.randn(10, 4, generator=torch.Generator().manual_seed(2))
    scores = nn.functional.normalize(latents, dim=1) @ nn.functional.normalize(prototypes.weight, dim=1).T
    first, second = scores[:5], scores[5:]
    q_first, q_second = (5 * sinkhorn(each.detach(), 0.05, 3) for each in (first, second))
    terms = [
        -(q * torch.log_softmax(each / 0.2, dim=1)).sum(dim=1) for q, each in ((q_second, first), (q_first, second))
    ]
    torch.testing.assert_close(prototypes(latents), torch.cat(terms).mean())


def test_the_length_of_latents_and_prototypes_does_not_count() -> None:
    prototypes = made()
    latents = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    before = prototypes(latents)
    with torch.no_grad():
        prototypes.weight.mul_(7.0)
    torch.testing.assert_close(prototypes(3.0 * latents), before)


def test_the_gradient_reaches_latents_and_prototypes_through_predictions_alone() -> None:
    """With targets held fixed the gradient is the same: none goes through the assignments."""
    prototypes = made()
    latents = torch.randn(8, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    prototypes(latents).backward()
    scores = prototypes.scores(latents)
    targets = torch.cat([prototypes.assignments(half) for half in scores.detach().chunk(2)][::-1])
    assert not targets.requires_grad
    (expected,) = torch.autograd.grad(prototypes.missed(scores, targets), latents)
    assert latents.grad is not None and prototypes.weight.grad is not None
    torch.testing.assert_close(latents.grad, expected)
    assert float(prototypes.weight.grad.abs().max()) > 0


def test_steps_along_the_gradient_lower_the_loss() -> None:
    prototypes = made(count=4)
    latents = nn.Parameter(torch.randn(16, 4, generator=torch.Generator().manual_seed(2)))
    optimiser = torch.optim.SGD([latents, prototypes.weight], lr=0.5)
    before = float(prototypes(latents).detach())
    for _ in range(60):
        optimiser.zero_grad()
        prototypes(latents).backward()
        optimiser.step()
    assert float(prototypes(latents).detach()) < 0.5 * before


def test_each_part_of_the_latent_has_prototypes_of_its_own() -> None:
    """Of 4 pairs the last is in strange colours; the last quarter of 8 latents is assigned over it alone."""
    asked = Objective(prototypes=Settings(weight=2.0, count=3), contrastive=Contrastive(weight=1e-9, shape_share=0.25))
    objectives = Objectives(asked, 8)
    assert [tuple(each.weight.shape) for each in objectives.prototypes] == [(3, 6), (3, 2)]
    latent = torch.randn(8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    extra, scalars = objectives(Loss(torch.tensor(0.0), {}, latent), torch.arange(4).repeat(2))
    looks, shapes = [0, 1, 2, 4, 5, 6], [3, 7]
    parts = [objectives.prototypes[0](latent[looks, :6]), objectives.prototypes[1](latent[shapes, 6:])]
    torch.testing.assert_close(scalars["prototypes"], 0.5 * (parts[0] + parts[1]).detach())
    assert float(extra.detach()) == pytest.approx(2.0 * float(scalars["prototypes"]), rel=1e-5)
    extra.backward()
    assert all(each.weight.grad is not None for each in objectives.prototypes)


def test_they_stand_behind_the_projection_head() -> None:
    asked = Objective(prototypes=Settings(weight=1.0), contrastive=Contrastive(weight=1e-9, projection=6))
    objectives = Objectives(asked, 4)
    latent = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    _, scalars = objectives(Loss(torch.tensor(0.0), {}, latent), torch.arange(4).repeat(2))
    torch.testing.assert_close(scalars["prototypes"], objectives.prototypes[0](objectives.head(latent)).detach())
