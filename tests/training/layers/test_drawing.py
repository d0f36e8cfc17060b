"""Cached sampling draws what naive sampling draws; multiscale images, labels and configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.training.layers.raster_cases import CASES, SIDE, binary_images, build
from training.layers.autoregressive import to_input
from training.layers.causal import Cursor, Everywhere
from training.layers.raster import Drawing
from training.models.made import Made, MadeConfig
from training.models.multiscale import GROUPS, GroupNetwork, Multiscale, MultiscaleConfig
from training.models.pixel_cnn import PixelCnnConfig
from training.models.pixel_cnn_pp import PixelCnnPpConfig
from training.models.pixel_rnn import skew, unskew
from training.models.pixel_vae import PixelVae, PixelVaeConfig
from training.protocols import Batch


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_cached_sampling_draws_what_naive_sampling_draws(case: str) -> None:
    model = build(case)
    label = None if model.config.classes is None else torch.tensor([0, 2, 1])
    fast, slow = (model.sample(3, torch.Generator().manual_seed(5), label=label, cached=each) for each in (True, False))
    assert torch.equal(fast, slow)
    assert len(fast.unique()) > 20, "images of one value show nothing"


@pytest.mark.parametrize("field", [1, 3, 17])
def test_cached_sampling_follows_a_map_of_conditions(field: int) -> None:
    torch.manual_seed(0)
    vae = PixelVae(
        PixelVaeConfig(size=8, widths=(6,), decoder_widths=(6,), latent_dim=3, receptive_field=field, mixtures=2)
    )
    vae.double().eval()
    blank, condition = torch.zeros(2, 3, 8, 8, dtype=torch.float64), vae.decoder(torch.randn(2, 3).double())
    fast, slow = (
        Drawing(vae.network, vae.distribution, to_input, cached=each).draw(
            blank, None, condition, torch.Generator().manual_seed(1)
        )
        for each in (True, False)
    )
    assert torch.equal(fast, slow)


@pytest.mark.parametrize("case", CASES)
def test_a_cursor_sees_at_each_pixel_what_one_parallel_pass_sees(case: str) -> None:
    model = build(case)
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    at, told = Cursor(to_input(x)), model.network.conditions(model.labels.planes(None, 2))
    everywhere = Everywhere(to_input(x))
    whole = model.network.horizontal(everywhere, model.network.vertical(everywhere, told), told).parameters
    with torch.no_grad():
        for row in range(SIDE):
            vertical = model.network.vertical(at.to_row(row), told)
            if row % 3 == 2:  # a row that is known is computed at once
                along = model.network.horizontal(at, vertical, told).parameters
                torch.testing.assert_close(along, whole[:, :, row : row + 1])
                continue
            for column in range(SIDE):
                here = model.network.horizontal(at.to_pixel(row, column), vertical, told).parameters
                torch.testing.assert_close(here[:, :, 0, 0], whole[:, :, row, column])


@pytest.mark.parametrize("case", CASES)
def test_a_completion_is_the_same_cached_and_naive(case: str) -> None:
    model = build(case)
    known = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    known[:3] = True
    known[5, 2:5] = True
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    fast, slow = (
        Drawing(model.network, model.distribution, to_input, cached=each).draw(
            x, known, model.labels.planes(None, 2), torch.Generator().manual_seed(2)
        )
        for each in (True, False)
    )
    assert torch.equal(fast, slow)
    assert torch.equal(fast[:, :, known], x[:, :, known])


def multiscale(**changes: Any) -> Multiscale:
    torch.manual_seed(0)
    settings = {"size": 8, "base": 2, "width": 6, "layers": 1, "blocks": 1, "mixtures": 2, "pool": 2}
    return Multiscale(MultiscaleConfig(**{**settings, **changes})).double().eval()


def test_a_group_depends_on_the_groups_before_it_alone() -> None:
    model = multiscale()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    nats = model.pixel_log_prob(x).nats.detach()[0]
    order = torch.full((8, 8), -1)
    order[::4, ::4] = torch.arange(4).reshape(2, 2)  # the base, pixel by pixel
    for scale, step in enumerate((2, 1)):
        for place, (row, column) in enumerate(GROUPS):
            order[row * step :: 2 * step, column * step :: 2 * step] = 10 + 3 * scale + place
    assert int(order.min()) == 0
    seen = torch.zeros(64, 64, dtype=torch.bool)
    for place in range(64):
        changed = x.clone()
        changed[0, :, place // 8, place % 8] = torch.rand(3, dtype=torch.float64)
        seen[:, place] = (model.pixel_log_prob(changed).nats.detach()[0] != nats).flatten()
    flat = order.flatten()
    itself = torch.eye(64, dtype=torch.bool)
    before = flat[:, None] > flat[None, :]
    assert bool(seen[itself].all())
    assert not bool((seen & ~before & ~itself).any())
    assert all(bool((seen & before)[flat == number].any()) for number in range(10, 16)), "each group sees something"


@pytest.mark.slow  # 65,536 images
def test_the_probabilities_of_a_multiscale_model_sum_to_one() -> None:
    model = multiscale(**{"size": 8, "channels": 1, "likelihood": "bernoulli"})
    object.__setattr__(model.config, "size", 4)  # below what an encoder may have, but all images can be counted
    model.scales = model.scales[:1]
    total = sum(
        float(model.pixel_log_prob(x).nats.sum(dim=(1, 2)).exp().sum().detach())
        for x in binary_images(4, 4).split(8192)
    )
    assert total == pytest.approx(1.0, abs=1e-9)


def test_a_multiscale_image_takes_three_passes_for_each_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = GroupNetwork.forward
    monkeypatch.setattr(GroupNetwork, "forward", lambda self, *x: calls.append(x[0].shape[-1]) or forward(self, *x))
    multiscale(size=32, base=4).sample(2)
    assert calls == [8, 8, 8, 16, 16, 16, 32, 32, 32]


LABELLED: dict[str, Callable[[], Any]] = {
    "gated": lambda: build("gated, whole pixels"),
    "made": lambda: Made(MadeConfig(size=SIDE, channels=3, hidden=(90,), classes=3)).double().eval(),
    "multiscale": lambda: multiscale(size=SIDE, base=4, classes=3),
}


@pytest.mark.parametrize("family", LABELLED)
def test_labels_are_summed_over_where_they_are_unknown(family: str) -> None:
    model = LABELLED[family]()
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64).mul(255).round() / 255
    model.labels.share.copy_(torch.tensor([0.5, 0.3, 0.2]))
    each = torch.stack([model.pixel_log_prob(x, torch.full((2,), label)).nats.sum(dim=(1, 2)) for label in range(3)])
    assert float((each[0] - each[1]).detach().abs().min()) > 1e-3, "the label changes nothing"
    expected = torch.logsumexp(each + model.labels.share.log()[:, None], dim=0)
    torch.testing.assert_close(model.log_likelihood(x).nats, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["made", "multiscale"])
def test_training_teaches_what_each_label_looks_like(family: str) -> None:
    torch.manual_seed(0)
    model = LABELLED[family]().float().train()
    label = torch.arange(3).repeat(8)
    x = (label / 2.0)[:, None, None, None].expand(-1, 3, SIDE, SIDE).clone()  # black, grey and white images
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(60):
        optimiser.zero_grad()
        model.loss(Batch(x, x, label=label), step).objective.backward()
        optimiser.step()
    drawn = model.eval().sample(6, torch.Generator().manual_seed(0), label=torch.tensor([0, 0, 1, 1, 2, 2]))
    shades = drawn.mean(dim=(1, 2, 3))
    assert float(shades[:2].max()) < 0.25 and float(shades[4:].min()) > 0.75, shades


def test_a_shifted_map_comes_back() -> None:
    x = torch.arange(1.0, 25.0).reshape(1, 2, 3, 4)
    shifted = skew(x)
    assert shifted.shape == (1, 2, 3, 6)
    assert shifted[0, 0].tolist() == [[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]]
    assert torch.equal(unskew(shifted), x)


def test_what_a_config_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match=r"receptive_field must be 1, or a power of two plus one .* not 7"):
        PixelVaeConfig(receptive_field=7)
    with pytest.raises(ValueError, match="predicts whole pixels"):
        PixelCnnPpConfig(likelihood="categorical")
    with pytest.raises(ValueError, match="size must be a multiple of 4 for 3 scales, not 30"):
        PixelCnnPpConfig(size=30, pool=2)
    with pytest.raises(ValueError, match="kernel must be odd and between 3 and size"):
        PixelCnnConfig(kernel=4)
    with pytest.raises(ValueError, match="width must be at least 3, not 2"):
        PixelCnnConfig(width=2)
