"""What a delta-VAE promises: the rate, and which rows its encoder and its decoder read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.layers.priors import FirstOrder, committed_rate
from training.models.delta_vae import DeltaVae, DeltaVaeConfig
from training.protocols import Batch

from .families import make_images

BANDS, ROWS = 4, 4  # bands of rows in an image, and rows in a band
RATE = 3.0


def tiny(**changes: Any) -> DeltaVae:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        **{"size": 16, "widths": (6, 8), "decoder_widths": (8, 6), "depth": 1, "decoder_depth": 1, "latent_dim": 8},
        **{"mixtures": 2, "receptive_field": 3, "map_width": 4, "pixel_width": 6, "head": 8, "committed_rate": RATE},
    }
    return DeltaVae(DeltaVaeConfig(**{**settings, **changes})).double().eval()


@pytest.mark.parametrize("normalisation", ["batch", "none"])
@torch.no_grad()
def test_a_latent_depends_on_its_band_and_those_below_alone(normalisation: str) -> None:
    model, x = tiny(normalisation=normalisation), make_images(1, seed=1).double()
    whole = model.posterior(x)
    for row in range(BANDS * ROWS):
        changed = x.clone()
        changed[:, :, row] = 1.0 - changed[:, :, row]
        q = model.posterior(changed)
        for before, after in zip(whole, q, strict=True):
            moved = (before != after).reshape(BANDS, 2).all(dim=1)
            same = (before == after).reshape(BANDS, 2).all(dim=1)
            assert bool(moved[: row // ROWS + 1].all()), f"a band does not read row {row}, which is not above it"
            assert bool(same[row // ROWS + 1 :].all()), f"a band reads row {row}, which is above it"


@torch.no_grad()
def test_the_decoder_of_a_band_reads_the_latents_up_to_its_own() -> None:
    model, z = tiny(), torch.randn(1, 8, dtype=torch.float64)
    whole = model.decoder(z)
    for place in range(8):
        changed = z.clone()
        changed[:, place] += 1.0
        rows = (model.decoder(changed) != whole).any(dim=3).any(dim=1)[0]
        assert rows.tolist() == [row // ROWS >= place // 2 for row in range(BANDS * ROWS)]


@torch.no_grad()
def test_the_measured_rate_is_never_below_the_committed_rate_which_is_the_closed_form() -> None:
    model, x = tiny(), make_images(8).double()
    assert isinstance(model.prior, FirstOrder)
    assert committed_rate(model.prior.alpha, BANDS, 2) == pytest.approx(RATE, abs=1e-9)
    assert float(model.elbo(Batch(x, x)).kl.sum(dim=1).min()) >= RATE
    for head in (model.encoder.mean, model.encoder.log_variance):  # an encoder that says nothing of the image
        head.weight.zero_()
        head.bias.zero_()
    inner = (1.0 - model.prior.alpha**2) / (1.0 + model.prior.alpha**2)
    variance = torch.tensor([model.prior.noise_variance, inner, inner, model.prior.noise_variance])
    model.encoder.log_variance.bias.copy_(variance.log().repeat_interleave(2))
    rates = model.elbo(Batch(x, x)).kl.sum(dim=1)
    torch.testing.assert_close(rates, torch.full_like(rates, RATE), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_training_against_its_latent_stops_at_the_committed_rate() -> None:
    model, x = tiny(beta=100.0).train(), make_images(16).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        optimiser.zero_grad()
        model.loss(Batch(x, x), step).objective.backward()
        optimiser.step()
    rate = float(model.eval().elbo(Batch(x, x)).kl.detach().sum(dim=1).mean())
    assert RATE <= rate < RATE + 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 10}, "latent_dim must be a multiple of the 4 rows, not 10"),
        ({"network": "mlp"}, "network must be conv, as latents belong to rows, not 'mlp'"),
        ({"foreground": True}, "foreground must be false, as it mixes rows"),
        ({"decoder_size": 8}, "decoder_size must be null, as it mixes rows"),
        ({"backbone": {"width": 0.25, "depth": 0.5}, "size": 32}, "backbone must be null, as it mixes rows"),
        ({"widths": (6,) * 4, "decoder_widths": (6,) * 4}, "widths must leave at least 2 rows of the image, not 1"),
        ({"committed_rate": -1.0}, "committed_rate must be at least 0, not -1.0"),
        ({"committed_rate": 99.0}, "committed_rate must be at most 11.4 nats for 4 x 2 latents, not 99.0"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_what_would_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)
