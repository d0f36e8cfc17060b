"""Flows in float64: inverses, log-determinants against autograd, densities that integrate to 1, masks and squeezes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.layers.flow import (
    ActNorm,
    Bijection,
    Chain,
    CheckerboardCoupling,
    Mix,
    Permutation,
    SplitCoupling,
    Squeeze,
    build_permutation,
    checkerboard,
    convolutional_network,
    dense_network,
    halves,
)
from training.layers.image_flow import dequantise, quantise
from training.layers.vector_flow import VectorFlow, VectorFlowConfig
from training.models.glow import Glow, GlowConfig
from training.models.real_nvp import RealNvp, RealNvpConfig

PERMUTATIONS = ("reverse", "random", "1x1")


def split_of_vectors(channels: int) -> SplitCoupling:
    passed, changed = halves(channels)
    return SplitCoupling(dense_network(passed, 2 * changed, (8,)), channels)


def split_of_images(channels: int) -> SplitCoupling:
    passed, changed = halves(channels)
    return SplitCoupling(convolutional_network(passed, 2 * changed, 4, 1), channels)


def checks(parity: int) -> CheckerboardCoupling:
    return CheckerboardCoupling(convolutional_network(3, 6, 4, 1), 3, 4, parity)


LAYERS: dict[str, tuple[Callable[[], Bijection], tuple[int, ...]]] = {
    "split of vectors": (lambda: split_of_vectors(4), (4,)),
    "split of 5 numbers": (lambda: split_of_vectors(5), (5,)),
    "split of images": (lambda: split_of_images(3), (3, 4, 4)),
    "even checkerboard": (lambda: checks(0), (3, 4, 4)),
    "odd checkerboard": (lambda: checks(1), (3, 4, 4)),
    "reversed vectors": (lambda: build_permutation("reverse", 5, 0), (5,)),
    "shuffled images": (lambda: build_permutation("random", 6, 3), (6, 2, 2)),
    "mixed vectors": (lambda: Mix(5), (5,)),
    "mixed images": (lambda: Mix(3), (3, 4, 4)),
    "normalised vectors": (lambda: ActNorm(5), (5,)),
    "normalised images": (lambda: ActNorm(3), (3, 4, 4)),
    "squeeze": (Squeeze, (3, 4, 4)),
    "stack of vectors": (lambda: vectors(dim=4, permutation="1x1", actnorm=True), (4,)),
    "stack of images": (lambda: Chain([checks(0), ActNorm(3), Squeeze(), Mix(12), split_of_images(12)]), (3, 4, 4)),
}


def vectors(**changes: Any) -> VectorFlow:
    return VectorFlow(VectorFlowConfig(**{"steps": 3, "hidden": (8,), **changes}))


def shaken(model: Any, by: float = 0.3) -> Any:
    """In float64, with every parameter away from its start; long stacks of images take less before they are chaos."""
    model.double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_determinant(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """log |det| of the Jacobian of a function at single values `(1, ...)`, by autograd."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_undone_by_its_inverse(name: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = shaken(make()), normal(3, *shape)
    z, _ = layer(x)
    assert z.shape != x.shape or float((z - x).detach().abs().max()) > 0.1, "it changes nothing"
    torch.testing.assert_close(layer.inverse(z), x, atol=1e-10, rtol=0)
    torch.testing.assert_close(layer(layer.inverse(z)).z, z, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_log_determinant_is_that_of_the_jacobian(name: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = shaken(make()), normal(3, *shape)
    expected = torch.stack([log_determinant(lambda one: layer(one).z, each[None]) for each in x])
    torch.testing.assert_close(layer(x).log_det, expected, atol=1e-9, rtol=0)


IMAGES: dict[str, tuple[Any, Any]] = {
    "real-nvp": (RealNvp, RealNvpConfig(size=8, channels=1, levels=2, width=4, blocks=1)),
    "real-nvp of one level": (RealNvp, RealNvpConfig(size=8, channels=1, levels=1, width=4, blocks=0)),
    "real-nvp in colour": (RealNvp, RealNvpConfig(size=8, channels=3, levels=3, width=4, permutation="1x1")),
    "glow": (Glow, GlowConfig(size=8, channels=1, levels=2, steps=2, width=4)),
    "glow in colour": (Glow, GlowConfig(size=8, channels=3, levels=3, steps=1, width=4, permutation="random")),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_flow_over_images_restores_them_and_knows_its_volume(name: str) -> None:
    torch.manual_seed(0)
    family, config = IMAGES[name]
    model, x = shaken(family(config), 0.05), normal(2, config.channels, 8, 8)
    latents = model.transform(x)
    assert [tuple(part.shape[1:]) for part in latents.parts] == model.shapes
    assert latents.parts[-1][0].numel() == config.latent_dim
    assert len(latents.parts) == config.levels
    torch.testing.assert_close(model.restore(latents.parts), x, atol=1e-10, rtol=0)

    def flat(one: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in model.transform(one).parts])

    torch.testing.assert_close(latents.log_det[0], log_determinant(flat, x[:1]), atol=1e-8, rtol=0)


@pytest.mark.parametrize("actnorm", [False, True])
@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_a_density_of_two_numbers_integrates_to_one(permutation: Any, actnorm: bool) -> None:
    torch.manual_seed(0)
    flow = shaken(vectors(permutation=permutation, actnorm=actnorm, steps=4))
    drawn = flow.sample(2000, torch.Generator().manual_seed(0))
    sides, cells = [], []
    for low, high in zip(drawn.amin(dim=0) - 3.0, drawn.amax(dim=0) + 3.0, strict=True):
        sides.append(torch.linspace(float(low), float(high), 700, dtype=torch.float64))
        cells.append(float(sides[-1][1] - sides[-1][0]))
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(*sides)).exp()
    assert float(density.sum()) * math.prod(cells) == pytest.approx(1.0, abs=1e-2)
    assert float(density.max()) > 0.01


@pytest.mark.slow
def test_a_flow_learns_where_points_are_and_draws_them_there() -> None:
    """The moments of a correlated Gaussian, its entropy, and the density of the samples."""
    torch.manual_seed(0)
    mix = torch.tensor([[1.0, 0.0], [1.2, 0.5]])
    flow = vectors(steps=4, permutation="1x1", actnorm=True).train()
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(300):
        points = torch.randn(256, 2) @ mix.T + torch.tensor([3.0, -2.0])
        optimiser.zero_grad()
        (-flow.log_prob(points).mean()).backward()
        optimiser.step()
    flow.eval()
    drawn = flow.sample(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(dim=0), torch.tensor([3.0, -2.0]), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), mix @ mix.T, atol=0.25, rtol=0)
    entropy = 1.0 + math.log(2.0 * math.pi) + math.log(0.5)
    with torch.no_grad():
        held_out = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1)) @ mix.T + torch.tensor([3.0, -2.0])
        assert float(-flow.log_prob(held_out).mean()) == pytest.approx(entropy, abs=0.05)


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith(("split", "even", "mixed", "norm", "st"))])
def test_every_parameter_of_a_layer_gets_a_gradient_from_the_start(name: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().train()
    z, log_det = layer(normal(6, *shape).float())
    (torch.square(z).sum() - log_det.sum()).backward()
    for label, parameter in layer.named_parameters():
        assert bool((parameter.grad != 0).any()), label


def test_part_of_a_chain_is_the_first_layers_and_undone_by_the_last() -> None:
    torch.manual_seed(0)
    flow, x = shaken(vectors(steps=5, permutation="random", dim=3)), normal(4, 3)
    z = x
    for number, layer in enumerate(flow.layers):
        torch.testing.assert_close(flow(x, layers=number).z, z)
        z = layer(z).z
    whole = flow(x)
    torch.testing.assert_close(whole.z, z)
    for number in range(6):
        torch.testing.assert_close(flow.inverse(whole.z, layers=number), flow(x, layers=5 - number).z)
    assert torch.equal(flow(x, layers=0).log_det, torch.zeros(4, dtype=torch.float64))
    with pytest.raises(ValueError, match="layers must be between 0 and 5, not 6"):
        flow(x, layers=6)


def test_an_actnorm_starts_from_its_first_batch_and_only_in_training() -> None:
    norm, x = ActNorm(3).double(), 4.0 * normal(50, 3, 4, 4) + 7.0
    assert torch.equal(norm.eval()(x).z, x)
    z, log_det = norm.train()(x)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.std(dim=(0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(log_det[0], -16.0 * x.std(dim=(0, 2, 3), correction=0).log().sum())
    again = norm(x + 1.0).z
    torch.testing.assert_close(again.mean(), (1.0 / x.std(dim=(0, 2, 3), correction=0)).mean())
    assert bool(norm(torch.zeros(2, 3, 1, 1, dtype=torch.float64)).z.isfinite().all())
    assert bool(ActNorm(2).train()(torch.ones(4, 2)).z.isfinite().all()), "a constant channel"


def test_a_mix_starts_as_a_rotation_that_is_not_the_identity() -> None:
    torch.manual_seed(0)
    weight = Mix(6).weight().detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(6), atol=1e-5, rtol=0)
    assert float((weight - torch.eye(6)).abs().max()) > 0.3


def test_what_passes_a_coupling_passes_unchanged_and_decides_alone() -> None:
    torch.manual_seed(0)
    layer, x = shaken(checks(0)), normal(1, 3, 4, 4)
    z = layer(x).z
    kept = checkerboard(4, 0)[0].bool()
    assert torch.equal(z[..., kept], x[..., kept])
    jacobian = torch.autograd.functional.jacobian(lambda one: layer(one).z, x)[0, :, :, :, 0]  # (C, H, W, C, H, W)
    across = jacobian[:, ~kept][..., ~kept].permute(0, 1, 2, 3).reshape(3 * 8, 3 * 8)
    assert bool((across == torch.diag(across.diagonal())).all()), "transformed pixels see each other"
    assert bool((across.diagonal() != 1).all())


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 17), parity=st.integers(0, 1))
def test_checkerboards_alternate_and_complement_each_other(size: int, parity: int) -> None:
    mask = checkerboard(size, parity)[0]
    assert torch.equal(mask + checkerboard(size, 1 - parity)[0], torch.ones(size, size))
    assert bool((mask[:, 1:] != mask[:, :-1]).all()) and bool((mask[1:] != mask[:-1]).all())
    assert float(mask[0, 0]) == 1 - parity


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4), count=st.integers(0, 3))
def test_a_squeeze_makes_channels_of_squares(channels: int, rows: int, columns: int, count: int) -> None:
    x = torch.arange(count * channels * rows * columns * 4.0).reshape(count, channels, 2 * rows, 2 * columns)
    z = Squeeze()(x).z
    assert z.shape == (count, 4 * channels, rows, columns)
    assert torch.equal(Squeeze().inverse(z), x)
    for place in range(count and 4):
        assert torch.equal(z[:, place::4], x[:, :, place // 2 :: 2, place % 2 :: 2])


@settings(max_examples=60, deadline=None)
@given(order=st.permutations(range(7)))
def test_a_permutation_is_undone(order: list[int]) -> None:
    x = torch.arange(14.0).reshape(2, 7)
    z = Permutation(order)(x).z
    assert z[0].tolist() == [float(place) for place in order]
    assert torch.equal(Permutation(order).inverse(z), x)


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(2, 33), seed=st.integers(0, 9))
def test_permutations_move_every_channel_once(channels: int, seed: int) -> None:
    for kind in ("reverse", "random"):
        layer = build_permutation(kind, channels, seed)
        assert sorted(layer.order.tolist()) == list(range(channels))
    assert halves(channels)[0] - halves(channels)[1] in (0, 1) and sum(halves(channels)) == channels


@settings(max_examples=30, deadline=None)
@given(margin=st.floats(0.001, 0.4), noise=st.floats(0.0, 0.999))
def test_every_8_bit_value_survives_its_logit(margin: float, noise: float) -> None:
    x = torch.arange(256, dtype=torch.float64).reshape(1, 1, 16, 16) / 255.0
    logits, _ = dequantise(x, noise, margin)
    assert bool((logits.flatten().diff() > 0).all())
    torch.testing.assert_close(quantise(dequantise(x, 0.5, margin).z, margin), x, atol=1e-9, rtol=0)
    off = quantise(logits, margin) - x
    assert float(off.abs().max()) <= 0.5 / 255.0 + 1e-9, "it fell into another bin"


def test_the_volume_of_the_logit_is_that_of_its_jacobian() -> None:
    x = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    noise = torch.rand(1, 3, 3, dtype=torch.float64)
    of_values = log_determinant(lambda values: dequantise(values / 255.0, noise, 0.05).z, 255.0 * x)
    torch.testing.assert_close(dequantise(x, noise, 0.05).log_det[0], of_values)


def test_a_likelihood_is_the_mass_of_a_bin_where_the_density_is_smooth() -> None:
    """One pixel value per image: the bound of all 256 values sums to the mass between the ends of the logit."""
    values = torch.arange(256, dtype=torch.float64).reshape(256, 1, 1, 1) / 255.0
    steps = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    total = 0.0
    for noise in steps:
        logits, log_det = dequantise(values, float(noise), 0.05)
        log_density = -0.5 * torch.square(logits.flatten()) - 0.5 * math.log(2.0 * math.pi)
        total += float((log_density + log_det).exp().sum()) / len(steps)
    ends = torch.tensor([0.05, 0.95], dtype=torch.float64).logit()
    mass = float(torch.special.ndtr(ends).diff())
    assert total == pytest.approx(mass, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 1}, "dim must be at least 2, not 1"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"hidden": ()}, "hidden must be positive numbers of units"),
        ({"permutation": "none"}, "permutation must be reverse or random or 1x1, not 'none'"),
    ],
)
def test_a_flow_of_vectors_refuses_what_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorFlowConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 28}, "size must be a multiple of 8 with 3 levels, not 28"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"margin": 0.5}, "margin must lie between 0 and 0.5, not 0.5"),
        ({"search_dim": 5000}, r"search_dim must be between 1 and the latent's size \(768\), not 5000"),
        ({"permutation": "x"}, "permutation must be reverse or random or 1x1, not 'x'"),
        ({"width": 0}, "width must be at least 1"),
    ],
)
@pytest.mark.parametrize("config", [RealNvpConfig, GlowConfig])
def test_a_flow_of_images_refuses_what_cannot_be(config: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**values)
