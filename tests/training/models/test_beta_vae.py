"""Traversals, and what beta does."""

from __future__ import annotations

import pytest
import torch

from training.models.beta_vae import BetaVae, BetaVaeConfig
from training.protocols import Batch

from .test_contract import make_images


def tiny(beta: float = 4.0) -> BetaVae:
    torch.manual_seed(0)
    config = BetaVaeConfig(size=8, widths=(6, 8), decoder_widths=(8, 6), latent_dim=3, beta=beta, normalisation="none")
    return BetaVae(config)


def test_a_traversal_changes_one_unit_alone() -> None:
    model = tiny().eval()
    z = torch.tensor([0.3, -0.2, 0.5])
    pictures = model.traverse(z, 1, [-2.0, -0.2, 2.0])
    assert pictures.shape == (3, 3, 8, 8)
    torch.testing.assert_close(pictures[1], model.decode(z[None])[0])
    torch.testing.assert_close(pictures[2], model.decode(torch.tensor([[0.3, 2.0, 0.5]]))[0])
    assert torch.equal(z, torch.tensor([0.3, -0.2, 0.5]))


@pytest.mark.parametrize("unit", [-1, 3])
def test_a_unit_that_is_not_there_is_named(unit: int) -> None:
    with pytest.raises(ValueError, match=f"unit must be between 0 and 2, not {unit}"):
        tiny().traverse(torch.zeros(3), unit, [0.0])


def test_a_larger_beta_buys_a_smaller_kl_with_a_worse_likelihood() -> None:
    x = make_images(64, size=8)
    kls, likelihoods = [], []
    for beta in (1.0, 20.0):
        model = tiny(beta).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(150):
            optimiser.zero_grad()
            model.loss(Batch(x, x), step).objective.backward()
            optimiser.step()
        with torch.no_grad():
            bound = model.eval().elbo(Batch(x, x), samples=20, generator=torch.Generator().manual_seed(0))
        kls.append(float(bound.kl.sum(dim=1).mean()))
        likelihoods.append(float(bound.log_likelihood.mean()))
    assert kls[1] < kls[0]
    assert likelihoods[1] < likelihoods[0]
