"""Vector quantisation: nearest codes, gradients, moving averages, dead codes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.layers.quantise import EPSILON, VectorQuantiser


def quantiser(codes: int = 4, code_dim: int = 2, **changes: Any) -> VectorQuantiser:
    torch.manual_seed(0)
    values: dict[str, Any] = {"update": "ema", "decay": 0.9, "commitment": 0.25, "restart": 0.0, **changes}
    return VectorQuantiser(codes, code_dim, **values)


def started(codebook: list[list[float]], **changes: Any) -> VectorQuantiser:
    """A quantiser whose codebook is given, as if training had begun."""
    made = quantiser(len(codebook), len(codebook[0]), **changes).double()
    with torch.no_grad():
        made.codebook.copy_(torch.tensor(codebook))
        made.sums.copy_(torch.tensor(codebook))
    made.started.fill_(True)
    return made


@settings(max_examples=50, deadline=None)
@given(codes=st.integers(1, 20), dim=st.integers(1, 6), vectors=st.integers(1, 30), seed=st.integers(0, 1000))
def test_the_code_is_the_nearest_by_brute_force(codes: int, dim: int, vectors: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    made = quantiser(codes, dim).double()
    made.codebook.copy_(torch.randn(codes, dim, generator=generator, dtype=torch.float64))
    z = torch.randn(vectors, dim, generator=generator, dtype=torch.float64)
    brute = [min(range(codes), key=lambda k: float(((v - made.codebook[k]) ** 2).sum())) for v in z]
    assert made.nearest(z).tolist() == brute


def test_the_map_keeps_its_places() -> None:
    made = started([[0.0, 0.0], [1.0, 1.0]]).eval()
    z = torch.tensor([[[[0.1, 0.9], [0.2, 0.8]], [[0.1, 0.9], [0.2, 0.8]]]], dtype=torch.float64)  # (1, 2, 2, 2)
    out = made(z)
    assert out.codes.tolist() == [[[0, 1], [0, 1]]]
    assert torch.equal(out.z, made.vectors_of(out.codes))
    assert out.z[0, :, 0, 1].tolist() == [1.0, 1.0]


def test_the_gradient_goes_straight_through() -> None:
    made = started([[0.0, 0.0], [1.0, 1.0]]).eval()
    z = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    (made(z).z * upstream).sum().backward()
    assert torch.equal(z.grad, upstream)


def test_commitment_pulls_the_vector_and_the_codebook_loss_pulls_the_code() -> None:
    made = started([[0.0, 0.0], [1.0, 1.0]], update="loss", commitment=0.5).eval()
    z = torch.tensor([0.2, 0.4], dtype=torch.float64).reshape(1, 2, 1, 1).requires_grad_()
    made(z).loss.backward()
    # Both means are over 2 numbers: d/dz of 0.5 mean (z - e)^2 is 0.5 (z - e), d/de of mean (z - e)^2 is e - z.
    torch.testing.assert_close(z.grad.flatten(), 0.5 * torch.tensor([0.2, 0.4], dtype=torch.float64))
    expected = torch.tensor([[-0.2, -0.4], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(made.codebook.grad, expected)


def test_two_steps_of_the_moving_averages_are_those_made_by_hand() -> None:
    made = started([[0.0], [10.0]]).train()
    counts, sums = [1.0, 1.0], [0.0, 10.0]
    for values in ([1.0, 2.0, 9.0], [0.5, 12.0, 13.0]):
        near = [[v for v in values if v < 6], [v for v in values if v >= 6]]
        counts = [0.9 * n + 0.1 * len(group) for n, group in zip(counts, near, strict=True)]
        sums = [0.9 * m + 0.1 * sum(group) for m, group in zip(sums, near, strict=True)]
        made(torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, 3))
        total = sum(counts)
        smoothed = [(n + EPSILON) / (total + 2 * EPSILON) * total for n in counts]
        expected = torch.tensor([[m / n] for m, n in zip(sums, smoothed, strict=True)], dtype=torch.float64)
        torch.testing.assert_close(made.codebook, expected)


def test_in_use_nothing_moves() -> None:
    made = started([[0.0], [10.0]]).eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.randn(3, 1, 2, 2, dtype=torch.float64))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_a_code_that_nobody_uses_is_set_to_a_vector_of_the_batch(update: str) -> None:
    made = started([[0.0, 0.0], [100.0, 100.0]], update=update, restart=0.5).train()
    z = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    for _ in range(10):  # 0.9^7 < 0.5
        made(z)
    assert float(made.codebook.detach().abs().max()) < 10.0
    assert len(made(z).codes.unique()) == 2


def test_a_code_that_was_reset_does_not_move_on_as_the_old_one_did() -> None:
    made = started([[0.0, 0.0], [3.0, 3.0]], update="loss", restart=0.5).train()
    optimiser = torch.optim.Adam(made.parameters(), lr=0.1)
    far, near = torch.full((2, 2, 1, 1), 9.0, dtype=torch.float64), 0.3 * torch.randn(4, 2, 4, 4, dtype=torch.float64)

    def step(z: Tensor) -> None:
        optimiser.zero_grad()
        made(z).loss.backward()
        made.forget_restarted(optimiser)
        optimiser.step()

    step(torch.cat([far.expand(2, 2, 4, 4), near]))  # the second code learns to move towards 9
    assert float(optimiser.state[made.codebook]["exp_avg"][1].abs().min()) > 0.1
    for _ in range(30):
        step(near)
        if bool(made.restarted[1]):
            break
    fresh = made.codebook.detach().clone()
    assert float(fresh[1].abs().max()) < 2.0, "the code was not reset"
    for moment in ("exp_avg", "exp_avg_sq"):
        assert float(optimiser.state[made.codebook][moment][1].abs().max()) == 0.0
        assert float(optimiser.state[made.codebook][moment][0].abs().min()) > 0.0
    with torch.no_grad():
        vectors = near.permute(0, 2, 3, 1).flatten(0, 2)
        nearest = torch.cdist(fresh[1:], vectors).min()
    assert float(nearest) < 0.01  # where it was put, but for the slight noise


def test_the_codebook_starts_at_vectors_of_the_first_batch_even_of_a_small_one() -> None:
    made = quantiser(codes=16, code_dim=2).train()
    z = torch.tensor([[[[5.0, 7.0]], [[5.0, 7.0]]]])
    made(z)
    assert float((made.codebook - 6.0).abs().max()) < 1.5
    single = quantiser(codes=4, code_dim=2).train()
    assert bool(torch.isfinite(single(torch.ones(1, 2, 1, 1)).z).all())


def test_perplexity_is_the_number_of_equally_used_codes() -> None:
    made = started([[0.0], [1.0], [2.0], [3.0]]).eval()
    even = made(torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64).reshape(1, 1, 2, 2))
    one = made(torch.zeros(1, 1, 2, 2, dtype=torch.float64))
    uneven = made(torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64).reshape(1, 1, 2, 2))
    assert float(even.perplexity) == pytest.approx(4.0, abs=1e-6)
    assert float(one.perplexity) == pytest.approx(1.0, abs=1e-6)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(uneven.perplexity) == pytest.approx(math.exp(entropy), abs=1e-6)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5])
def test_a_decay_out_of_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay must lie between 0 and 1, not {decay}"):
        quantiser(decay=decay)


def test_mixed_precision_does_not_confuse_near_codes() -> None:
    made = quantiser(codes=64, code_dim=8).eval()
    with torch.no_grad():
        made.codebook.copy_(10.0 + 0.05 * torch.randn(64, 8, generator=torch.Generator().manual_seed(1)))
    z = made.codebook[torch.arange(64)] + 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        assert made.nearest(z).tolist() == list(range(64))
