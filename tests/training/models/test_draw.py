"""DRAW: its bound by hand, what attention and steps do, and the pictures of its steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from training.models.draw import Draw, DrawConfig
from training.protocols import Batch, StepwiseModel, VariationalModel
from training.step_pictures import READ, WRITTEN, framed, step_rows

from .families import make_images


def tiny(**changes: Any) -> Draw:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"size": 8, "channels": 1, "steps": 3, "step_dim": 2, "hidden": 6, **changes}
    return Draw(DrawConfig(**settings)).double().eval()


def digits(count: int = 4) -> torch.Tensor:
    """Binarised images."""
    return (make_images(count, size=8, channels=1) > 0.5).double()


def test_the_bound_of_two_steps_by_hand() -> None:
    """With zero weights both posteriors and the canvas follow from the biases alone."""
    model = tiny(steps=2, attention=False, likelihood="bernoulli")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.heads.mean.bias.copy_(torch.tensor([1.0, -2.0]))
        model.heads.log_variance.bias.copy_(torch.tensor([0.0, math.log(0.25)]))
        model.first_canvas.fill_(0.1)
        model.write.canvas.bias.fill_(0.3)
    bound = model.elbo(Batch(digits(), digits()))
    # KL = (mu^2 + sigma^2 - 1 - log sigma^2) / 2 of each number, at each of the steps (equation 11)
    kl = [0.5 * (1 + 1 - 1 - 0), 0.5 * (4 + 0.25 - 1 - math.log(0.25))]
    assert bound.kl[0].tolist() == pytest.approx([*kl, *kl])
    chance = 1 / (1 + math.exp(-0.7))  # the canvas is 0.1 + 2 * 0.3
    ones = digits().sum(dim=(1, 2, 3))
    expected = ones * math.log(chance) + (64 - ones) * math.log(1 - chance)
    torch.testing.assert_close(bound.log_likelihood, expected)
    torch.testing.assert_close(bound.elbo, expected - 2 * sum(kl))


def test_the_encoder_reads_the_image_beside_what_the_canvas_misses() -> None:
    model = tiny(steps=1, attention=False, likelihood="bernoulli")
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        model.first_canvas.fill_(2.0)
        model.first_decoder.fill_(0.25)
    x = digits()
    model.latent(x)
    error = x - 1 / (1 + math.exp(-2.0))
    expected = torch.cat([x.flatten(1), error.flatten(1), torch.full((4, 6), 0.25).double()], dim=1)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_reaches_every_parameter_with_and_without_attention(attention: bool, channels: int) -> None:
    model = tiny(attention=attention, channels=channels).train()
    x = make_images(6, size=8, channels=channels).double()
    model.loss(Batch(x, x), step=0).objective.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("attention", [True, False])
def test_decoding_the_latent_draws_what_inference_draws(attention: bool) -> None:
    model, x = tiny(attention=attention), digits()
    with torch.no_grad():
        torch.testing.assert_close(model.decode(model.latent(x)), model.reconstruct(x))
        steps = model.reconstruct_in_steps(x)
    assert len(steps) == 3
    torch.testing.assert_close(steps[-1].picture, model.reconstruct(x))
    assert not torch.allclose(steps[0].picture, steps[-1].picture)
    assert (steps[0].read is None) == (steps[0].written is None) == (not attention)


def test_a_later_step_depends_on_what_was_drawn_before_it() -> None:
    model, x = tiny(), digits()
    noise = torch.zeros(4, 3, 2).double()
    other = noise.clone()
    other[:, 0] = 2.0
    with torch.no_grad():
        first, second = (torch.stack([step.posterior.mean for step in model.infer(x, each)]) for each in (noise, other))
    torch.testing.assert_close(first[0], second[0])
    assert not torch.allclose(first[1], second[1])
    torch.testing.assert_close(first.transpose(0, 1).flatten(1), model.latent(x))


@pytest.mark.parametrize("attention", [True, False])
def test_the_importance_weighted_bound_rises_with_its_samples(attention: bool) -> None:
    model, x = tiny(attention=attention, likelihood="bernoulli"), digits(8)
    with torch.no_grad():
        model.heads.mean.bias.fill_(1.0)  # posteriors that are off, so that the bounds differ
        bounds = [
            torch.stack(
                [model.importance_weighted(Batch(x, x), k, torch.Generator().manual_seed(s)) for s in range(20)]
            ).mean()
            for k in (1, 8, 64)
        ]
        elbo = model.elbo(Batch(x, x), samples=200, generator=torch.Generator().manual_seed(0)).elbo.mean()
    assert bounds[0] < bounds[1] < bounds[2]
    torch.testing.assert_close(bounds[0], elbo, atol=0.3, rtol=0)


def test_many_importance_samples_reach_the_likelihood_found_by_integration() -> None:
    model, x = tiny(steps=2, step_dim=1, likelihood="bernoulli"), digits(3)
    grid = torch.linspace(-5.0, 5.0, 101, dtype=torch.float64)
    with torch.no_grad():
        z = torch.cartesian_prod(grid, grid)
        prior = -0.5 * (z**2 + math.log(2 * math.pi)).sum(dim=1)
        canvas = model._drawings(z)[-1].canvas
        log_joint = model.likelihood(x, canvas[:, None].expand(-1, 3, -1, -1, -1)) + prior[:, None]
        exact = torch.logsumexp(log_joint, dim=0) + 2 * math.log(float(grid[1] - grid[0]))
        bound = model.importance_weighted(Batch(x, x), 20_000, torch.Generator().manual_seed(0))
        elbo = model.elbo(Batch(x, x), samples=400, generator=torch.Generator().manual_seed(0)).elbo
    torch.testing.assert_close(bound, exact, atol=0.02, rtol=0)
    assert bool((elbo < exact).all())


def test_many_samples_come_in_parts_that_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = tiny(likelihood="bernoulli"), digits(3)
    seen: list[int] = []
    monkeypatch.setattr("training.models.draw.VALUES_AT_ONCE", 30 * 64)
    model.decoder.register_forward_hook(lambda module, given, out: seen.append(len(out[0])))
    found = model.importance_weighted(Batch(x, x), 50, torch.Generator().manual_seed(0))
    assert found.shape == (3,) and max(seen) <= 30 and sum(seen) == 3 * 150


def test_samples_follow_their_latents_and_have_the_steps_of_the_same_seed() -> None:
    model = tiny()
    with torch.no_grad():
        whole = model.sample(5, torch.Generator().manual_seed(4))
        steps = model.sample_in_steps(5, torch.Generator().manual_seed(4))
    torch.testing.assert_close(steps[-1].picture, whole)
    assert all(step.read is None and step.written is not None for step in steps)


def test_the_family_offers_its_bound_and_its_steps() -> None:
    assert isinstance(tiny(), VariationalModel) and isinstance(tiny(), StepwiseModel)


def test_the_search_space_is_that_of_the_means_of_all_steps() -> None:
    model, x = tiny(whitening=1.0, search_dim=4), make_images(40, size=8, channels=1).double()
    shipped, _ = model.finish([Batch(part, part) for part in x.split(16)])
    with torch.no_grad():
        vectors = shipped.embed(x)
    torch.testing.assert_close(torch.cov(vectors.T), torch.eye(4).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"read_size": 1}, r"read_size must be between 2 and the size \(32\), not 1"),
        ({"write_size": 33}, r"write_size must be between 2 and the size \(32\), not 33"),
        ({"likelihood": "poisson"}, "likelihood must be gaussian or logistic or bernoulli, not 'poisson'"),
        ({"likelihood": "bernoulli", "scale": 0.1}, "scale must be null for a bernoulli likelihood"),
        ({"search_dim": 257}, r"search_dim must be between 1 and the latent's size \(256\), not 257"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_what_would_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DrawConfig(**settings)


def test_a_window_is_drawn_around_its_pixels() -> None:
    window = torch.tensor([[2.0, 1.0, 6.0, 5.0, 0.01]])
    picture = framed(torch.zeros(1, 1, 8, 8), window, READ)  # enlarged 12 times
    assert picture.shape == (1, 3, 96, 96)
    ys, xs = torch.nonzero(picture[0, 1] > 0, as_tuple=True)
    assert (int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())) == (24, 12, 71, 59)
    assert not bool(picture[0, :, 30, 40].any()), "the inside of a window is the image itself"


def test_each_step_shows_where_the_model_reads_and_writes() -> None:
    rows = step_rows(tiny(), digits(), torch.Generator().manual_seed(0))
    assert len(rows) == 3 and list(rows[0]) == ["image", "canvas", "sample"]
    for label, colour in (("image", READ), ("canvas", WRITTEN), ("sample", WRITTEN)):
        outline = (rows[0][label] * 255).round().int() == torch.tensor(colour)[:, None, None]
        assert bool(outline.all(dim=1).flatten(1).any(dim=1).all()), label
    plain = step_rows(tiny(attention=False), digits(), torch.Generator().manual_seed(0))
    image = plain[0]["image"]
    torch.testing.assert_close(image, digits().expand(-1, 3, -1, -1).repeat_interleave(12, 2).repeat_interleave(12, 3))
