"""Flows over latents: densities with and without PyTorch, typicality, and priors of a VAE."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.models.families import fitted, make_images
from training.errors import EncoderError
from training.fitting.density import DensitySettings
from training.latent_flow import LatentFlow, LatentFlowConfig, load_latent_flow
from training.layers.gaussian import draw, log_standard_normal
from training.protocols import Batch
from training.vector_density import DENSITY_FILE, load_density

QUICK = DensitySettings(epochs=15, batch_size=128, lr=5e-3)


def ring(count: int, seed: int, dim: int = 5) -> torch.Tensor:
    """Vectors on a noisy ring in the first two of their numbers, narrow in the others."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2.0 * math.pi * torch.rand(count, generator=generator)
    vectors = 0.1 * torch.randn(count, dim, generator=generator)
    vectors[:, :2] += 2.0 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return vectors


@pytest.fixture(scope="module")
def flow() -> LatentFlow:
    torch.manual_seed(0)
    found = LatentFlow(LatentFlowConfig(vector_dim=5, steps=4, hidden=(32,)))
    found.fit(ring(3000, 0), ring(1000, 1), QUICK)
    return found


@pytest.fixture(scope="module")
def of_two_axes() -> LatentFlow:
    torch.manual_seed(0)
    found = LatentFlow(LatentFlowConfig(vector_dim=5, dim=3, steps=2, hidden=(16, 16)))
    found.fit(ring(2000, 0), ring(400, 1), DensitySettings(epochs=5, batch_size=128))
    return found


def test_a_flow_of_latents_beats_the_gaussian_of_their_covariance(flow: LatentFlow) -> None:
    train, held_out = ring(3000, 0), ring(2000, 7)
    gaussian = torch.distributions.MultivariateNormal(train.mean(dim=0), torch.cov(train.T))
    with torch.no_grad():
        nats = float(flow.log_prob(held_out).mean())
    assert nats > float(gaussian.log_prob(held_out).mean()) + 0.5
    assert flow.log_prob(held_out[:6].reshape(2, 3, 5)).shape == (2, 3)


def test_the_density_is_that_of_the_vectors_and_its_samples_have_it(flow: LatentFlow) -> None:
    """The volume of the whitening counts: the density integrates to 1, by importance sampling."""
    drawn = flow.sample(4000, torch.Generator().manual_seed(0))
    assert float((drawn[:, :2].norm(dim=1) - 2.0).abs().median()) < 0.25
    wide = torch.distributions.MultivariateNormal(drawn.mean(dim=0), 1.5 * torch.cov(drawn.T))
    torch.manual_seed(1)
    points = wide.sample((200_000,))
    with torch.no_grad():
        mass = (flow.log_prob(points) - wide.log_prob(points)).exp().mean()
    assert float(mass) == pytest.approx(1.0, abs=0.05)


def test_typicality_is_a_rank_among_held_out_vectors(flow: LatentFlow) -> None:
    ranks = flow.typicality(ring(4000, 9))
    assert float(ranks.mean()) == pytest.approx(0.5, abs=0.05)
    assert float((ranks < 0.1).float().mean()) == pytest.approx(0.1, abs=0.04)
    far = torch.tensor([[4.0, 0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 1.0, 0.0, 0.0], [30.0] * 5])  # the ring has radius 2
    assert flow.typicality(far).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["flow", "of_two_axes"])
def test_numpy_computes_what_pytorch_does(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    fitted_flow: LatentFlow = request.getfixturevalue(name)
    path = fitted_flow.save(tmp_path, "abc")
    density = load_density(tmp_path, "abc")
    vectors = torch.cat([ring(50, 3), torch.zeros(1, 5), torch.full((1, 5), 8.0)])
    with torch.no_grad():
        expected = fitted_flow.double().flow.log_prob(fitted_flow.space(vectors.double()))
        fitted_flow.float()
    np.testing.assert_allclose(density.log_density(vectors.numpy()), expected.numpy(), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(density.typicality(vectors.numpy()), fitted_flow.typicality(vectors).numpy(), atol=0.005)
    loaded, spec = load_latent_flow(tmp_path)
    assert spec.encoder_id == "abc" and path.name == DENSITY_FILE
    torch.testing.assert_close(loaded.log_prob(vectors), fitted_flow.log_prob(vectors))
    assert torch.equal(loaded.typicality(vectors), fitted_flow.typicality(vectors))


def test_reading_a_density_imports_no_torch(flow: LatentFlow, tmp_path: Path) -> None:
    flow.save(tmp_path, "abc")
    script = (
        "import sys, numpy as np; from pathlib import Path; from training.vector_density import load_density\n"
        f"print(load_density(Path({str(tmp_path)!r}), 'abc').typicality(np.zeros((2, 5))).tolist())\n"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == pytest.approx(flow.typicality(torch.zeros(2, 5)).tolist(), abs=0.005)


def rewritten(directory: Path, **changes: Any) -> None:
    """The density file with other arrays; None removes one."""
    with np.load(directory / DENSITY_FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, value in changes.items():
        if name == "settings":
            settings = {**json.loads(bytes(arrays["settings"])), **value}
            arrays["settings"] = np.frombuffer(json.dumps(settings).encode(), np.uint8)
        elif value is None:
            del arrays[name]
        else:
            arrays[name] = value
    np.savez(directory / DENSITY_FILE, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space.offset": np.zeros(4)}, r"space.offset has shape \(4,\), expected \(5,\); fit it again"),
        ({"flow.layers.1.layers.2.sign": None}, "flow.layers.1.layers.2.sign has shape missing"),
        ({"flow.layers.0.layers.0.shift": np.full(5, np.nan)}, "flow.layers.0.layers.0.shift is not finite"),
        ({"space.offset": np.array(["a"] * 5)}, "space.offset is not finite"),
        ({"reference": None}, "has no log-densities of held-out vectors"),
        ({"reference": np.zeros(0)}, "has no log-densities of held-out vectors"),
        ({"settings": {"format": 2}}, "format 2 is not 1"),
        ({"settings": {"steps": 10**9}}, "steps 1000000000 is not a whole number from 1 to 65,536"),
        ({"settings": {"hidden": ["x"]}}, "hidden 'x' is not a whole number"),
        ({"space.offset": np.array([None] * 5)}, "not a usable density"),
    ],
)
def test_a_damaged_density_is_refused(flow: LatentFlow, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    flow.save(tmp_path, "abc")
    rewritten(tmp_path, **changes)
    with pytest.raises(EncoderError, match=message):
        load_density(tmp_path, "abc")


def test_a_density_of_another_encoder_or_none_is_refused(flow: LatentFlow, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="density.npz: not a usable density"):
        load_density(tmp_path, "abc")
    flow.save(tmp_path, "abc")
    with pytest.raises(EncoderError, match="describes vectors of encoder abc, not of xyz; fit it again"):
        load_density(tmp_path, "xyz")
    (tmp_path / DENSITY_FILE).write_bytes(b"no archive")
    with pytest.raises(EncoderError, match="not a usable density"):
        load_density(tmp_path, "abc")


def test_arrays_that_would_fill_the_memory_are_not_unpacked(
    flow: LatentFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.save(tmp_path, "abc")
    monkeypatch.setattr("training.vector_density.MAX_BYTES", 1000)
    with pytest.raises(EncoderError, match="its arrays take .* bytes, more than 1,000"):
        load_density(tmp_path, "abc")


def test_a_flow_says_what_it_cannot_do(of_two_axes: LatentFlow) -> None:
    with pytest.raises(ValueError, match="the flow describes 3 of 5 axes; fit one with all axes"):
        of_two_axes.sample(3)
    with pytest.raises(ValueError, match="a density needs at least 20 held-out vectors, not 5"):
        LatentFlow(LatentFlowConfig(vector_dim=5)).fit(ring(50, 0), ring(5, 1), QUICK)


def test_a_prior_in_the_bound_of_a_vae_is_added_where_the_gaussian_was() -> None:
    vae, x = fitted("vae"), make_images(6)

    def bound(**options: Any) -> torch.Tensor:
        return vae.importance_weighted(Batch(x, x), 1, torch.Generator().manual_seed(3), **options).detach()

    q = vae.posterior(x)
    z = draw(q, 1, torch.Generator().manual_seed(3))[0]
    wide = bound(log_prior=lambda latents: log_standard_normal(latents / 2.0) - latents.shape[-1] * math.log(2.0))
    difference = 0.375 * z.square().sum(dim=1) - z.shape[1] * math.log(2.0)
    torch.testing.assert_close(wide - bound(), difference.detach(), atol=1e-3, rtol=0)


def test_a_fitted_prior_raises_the_bound_of_a_vae() -> None:
    """A VAE that has hardly been trained has latents that N(0, I) describes poorly once they are moved."""
    vae = fitted("vae")
    with torch.no_grad():
        vae.encoder.mean.bias += 3.0
        noise = torch.Generator().manual_seed(0)
        seen, others = (
            draw(vae.posterior(make_images(count, seed=seed)), 4, noise).flatten(0, 1)
            for count, seed in ((200, 1), (50, 2))
        )
    torch.manual_seed(0)
    prior = LatentFlow(LatentFlowConfig(vector_dim=seen.shape[1], steps=2, hidden=(16,)))
    prior.fit(seen, others, DensitySettings(epochs=4, batch_size=64, lr=5e-3))
    x = make_images(20, seed=3)
    with torch.no_grad():
        plain, better = (
            vae.importance_weighted(Batch(x, x), 8, torch.Generator().manual_seed(0), **options).mean()
            for options in ({}, {"log_prior": prior.log_prob})
        )
    assert float(better) > float(plain) + 10.0
