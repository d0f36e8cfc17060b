"""The effect of beta."""

from __future__ import annotations

import pytest
import torch

from training.models.beta_vae import BetaVae, BetaVaeConfig
from training.protocols import Batch

from .families import make_images


def tiny(beta: float = 4.0) -> BetaVae:
    torch.manual_seed(0)
    config = BetaVaeConfig(size=8, widths=(6, 8), decoder_widths=(8, 6), latent_dim=3, beta=beta, normalisation="none")
    return BetaVae(config)


@pytest.mark.slow
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
