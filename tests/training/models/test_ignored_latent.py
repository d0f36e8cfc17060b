"""The objectives of InfoVAE and VLAE: the terms that they add to those of a PixelVAE, and what these do to a latent."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.layers.gaussian import draw, log_standard_normal, mmd_to_standard_normal
from training.models import MODELS
from training.protocols import Batch

from .families import make_images

TINY: dict[str, Any] = {
    **{"size": 8, "widths": (6, 8), "decoder_widths": (8, 6), "latent_dim": 4, "normalisation": "none"},
    **{"mixtures": 2, "receptive_field": 3, "map_width": 4, "pixel_width": 6, "head": 8},
}
X = make_images(16, size=8)


def tiny(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return MODELS[family].model(MODELS[family].config(**{**TINY, **changes}))


def trained(family: str, steps: int, **changes: Any) -> Any:
    model = tiny(family, **changes).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(steps):
        optimiser.zero_grad()
        model.loss(Batch(X, X), step).objective.backward()
        optimiser.step()
    return model.eval()


@pytest.mark.parametrize(("alpha", "lambda_"), [(0.0, 1.0), (0.0, 50.0), (1.0, 20.0), (-2.0, 4.0)])
def test_the_objective_of_an_infovae_is_equation_6(alpha: float, lambda_: float) -> None:
    model = tiny("infovae", alpha=alpha, lambda_=lambda_, samples=2, kernel_width=1.5).eval()
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    loss = model.loss(Batch(X, X), step=0)
    z = seen[0].reshape(2, len(X), 4)
    mmd = sum(mmd_to_standard_normal(each, 1.5) for each in z) / 2.0
    scalars = loss.scalars
    expected = (1.0 - alpha) * scalars["kl"] + (alpha + lambda_ - 1.0) * mmd - scalars["log_likelihood"]
    torch.testing.assert_close(loss.objective, expected)
    torch.testing.assert_close(scalars["mmd"], mmd)


def test_without_an_mmd_an_infovae_is_a_pixel_vae_and_the_kernel_is_that_of_the_authors() -> None:
    objectives = []
    for family, changes in (("pixel-vae", {}), ("infovae", {"alpha": 0.0, "lambda_": 1.0})):
        model = tiny(family, **changes)
        torch.manual_seed(1)
        objectives.append(model.loss(Batch(X, X), step=0).objective)
    torch.testing.assert_close(*objectives)
    z = torch.randn(1, 5, 4)
    found = tiny("infovae").penalties(z)["mmd"][1]
    torch.testing.assert_close(found, mmd_to_standard_normal(z[0], 4.0 / 2.0**0.5))


def test_an_mmd_keeps_the_latents_of_all_images_near_the_prior_where_nothing_else_does() -> None:
    found = []
    for lambda_ in (0.0, 3000.0):
        q = trained("infovae", 100, alpha=1.0, lambda_=lambda_, kernel_width=1.5).posterior(X)
        z = draw(q, 50, torch.Generator().manual_seed(0)).detach()
        found.append(float(torch.stack([mmd_to_standard_normal(each, 1.5) for each in z]).mean()))
    assert found[1] < 0.2 * found[0]


def test_training_a_vlae_moves_its_prior_towards_its_latents() -> None:
    """Against N(0, I) as the prior of the same model, with the same samples."""
    model = trained("vlae", 200, flow_hidden=(16,), receptive_field=1)
    noise = [torch.Generator().manual_seed(3) for _ in range(2)]
    with torch.no_grad():
        learnt = model.importance_weighted(Batch(X, X), 8, noise[0])
        plain = model.importance_weighted(Batch(X, X), 8, noise[1], log_prior=log_standard_normal)
    assert float(learnt.mean()) > float(plain.mean()) + 0.1


def test_draws_of_a_vlae_have_the_density_that_its_bound_uses() -> None:
    model = trained("vlae", 50, flow_hidden=(16,))
    u = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = model.draw_latents(6, torch.Generator().manual_seed(0), 1.0)
        for step in model.prior.steps:
            z = step(z).z
    torch.testing.assert_close(z, u, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("infovae", {"beta": 2.0}, "beta must be 1, as alpha weights the KL, not 2.0"),
        ("infovae", {"alpha": 1.5}, "alpha must be at most 1, not 1.5"),
        ("infovae", {"alpha": 0.0, "lambda_": 0.5}, r"alpha \+ lambda_ must be at least 1.0, not 0.5"),
        ("infovae", {"kernel_width": 0.0}, "kernel_width must be above 0, not 0.0"),
        ("vlae", {"flow_steps": 0}, "flow_steps must be at least 1, not 0"),
        ("vlae", {"flow_hidden": ()}, "flow_hidden must be positive numbers of units, one per layer"),
        ("vlae", {"flow_hidden": (4, 0)}, "flow_hidden must be positive numbers of units, one per layer"),
        ("vlae", {"latent_dim": 1}, "latent_dim must be at least 2, not 1"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_what_would_do(
    family: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(family, **settings)
