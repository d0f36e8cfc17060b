"""Autoencoders: what is corrupted, and what samples are drawn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from training.models.ae import Ae, AeConfig
from training.protocols import Batch

from .families import make_images


def tiny(**changes: Any) -> Ae:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"size": 8, "widths": (6, 8), "decoder_widths": (8, 6), "latent_dim": 3, **changes}
    return Ae(AeConfig(normalisation="none", **settings))


def seen_by(model: Ae, batch: Batch) -> Tensor:
    seen: list[Tensor] = []
    hook = model.encoder.stages.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.loss(batch, step=0)
    hook.remove()
    return 0.5 * (seen[0] + 1.0)


def test_noise_is_put_on_the_input_alone_and_in_training_alone() -> None:
    model = tiny(noise=0.2, scale=0.1).train()
    x = make_images(256, size=8)
    noise = seen_by(model, Batch(x, x)) - x
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(noise.std()) == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(seen_by(model.eval(), Batch(x, x)), x)
    other = 1.0 - x
    torch.manual_seed(0)
    loss = model.train().loss(Batch(x, other), step=0)
    torch.manual_seed(0)
    mean = model.decode(model.latent(x + 0.2 * torch.randn_like(x))).detach()
    assert float(loss.scalars["squared_error"]) == pytest.approx(float(torch.square(mean - other).mean()), rel=1e-4)


def test_the_objective_is_minus_the_log_likelihood_given_the_code() -> None:
    model = tiny(scale=0.1).eval()
    x = make_images(5, size=8)
    expected = -model.likelihood(x, model.decoder(model.latent(x))).mean()
    torch.testing.assert_close(model.loss(Batch(x, x), step=0).objective, expected)


def test_samples_decode_codes_like_those_of_training() -> None:
    model = tiny().eval()
    x = make_images(200, size=8)
    finished, _ = model.finish([Batch(part, part) for part in x.split(50)])
    codes = finished.latent(x).detach()
    drawn: list[Tensor] = []
    finished.decoder.register_forward_pre_hook(lambda module, given: drawn.append(given[0]))
    finished.sample(50_000, torch.Generator().manual_seed(0))
    spread = codes.std(dim=0)
    torch.testing.assert_close(drawn[0].mean(dim=0) / spread, codes.mean(dim=0) / spread, atol=0.03, rtol=0)
    scale = spread[:, None] * spread
    torch.testing.assert_close(torch.cov(drawn[0].T) / scale, torch.cov(codes.T) / scale, atol=0.05, rtol=0)


def test_an_autoencoder_claims_no_likelihood() -> None:
    from training.protocols import GenerativeModel, LikelihoodModel

    assert isinstance(tiny(), GenerativeModel)
    assert not isinstance(tiny(), LikelihoodModel)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, not 0"),
        ({"noise": -0.1}, "noise must be at least 0, not -0.1"),
        ({"search_dim": 200}, r"search_dim must be between 1 and the latent's size \(128\), not 200"),
        ({"whitening": -1.0}, "whitening must be between 0 and 1, not -1.0"),
        ({"turn": "qr"}, "turn must be pca or zca, not 'qr'"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AeConfig(**settings)
