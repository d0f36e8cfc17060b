"""Finding the item first: boxes around masses, blending by confidence, what the inner encoder sees."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.embedder import load_embedder
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.finder.network import Finder, FinderConfig, FinderOutput
from training.item_first import item_first, write_item_first
from training.models import MODELS
from training.models.item_first import ItemFirst, ItemFirstConfig, plainness, put_back, square_around
from training.preprocessing import Preprocessing
from training.protocols import GenerativeModel, LikelihoodModel

FINDER: dict[str, Any] = {
    "size": 32, "widths": (4, 6), "depths": (0, 0), "decoder_widths": (4,), "normalisation": False,
}  # fmt: skip
INNER = {"size": 16, "channels": 3}


def build(**changes: Any) -> ItemFirst:
    torch.manual_seed(0)
    values = {"size": 64, "finder": FINDER, "encoder": {"family": "pixels", "config": INNER}, **changes}
    return ItemFirst(ItemFirstConfig(**values)).eval()


def finding(model: ItemFirst, mask: Tensor, confidence: float) -> ItemFirst:
    """The same model with a finder that always finds this mask `(h, w)`, and is this sure of it."""

    class Known(torch.nn.Module):
        config = model.finder.config

        def forward(self, x: Tensor) -> FinderOutput:
            logits = torch.where(mask > 0.5, 30.0, -30.0).expand(len(x), 1, *mask.shape)
            return FinderOutput(logits, torch.logit(torch.tensor(confidence)).expand(len(x)))

    model.finder = Known()  # type: ignore[assignment]
    return model


def rectangle(left: int, top: int, right: int, bottom: int, side: int = 16) -> Tensor:
    mask = torch.zeros(side, side)
    mask[top:bottom, left:right] = 1.0
    return mask


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(4, 24), st.integers(4, 24), st.floats(0.0, 0.5))
def test_the_square_holds_the_item(left, top, width, height, margin):
    right, bottom = min(48, left + width), min(48, top + height)
    mask = rectangle(left, top, right, bottom, 48)
    box = 48.0 * square_around(mask[None, None], margin)[0]
    slack = 0.35  # of a cell: what the even spread of mass misses
    assert box[0] <= left + slack and box[1] <= top + slack and box[2] >= right - slack and box[3] >= bottom - slack
    side = float(box[2] - box[0])
    assert abs(side - float(box[3] - box[1])) < 1e-3
    assert side <= max(right - left, bottom - top) * (1.0 + 2.0 * margin) + 2 * slack


def test_stray_cells_do_not_stretch_the_square():
    mask = rectangle(20, 20, 36, 36, 48)
    mask[0, 0] = mask[47, 2] = 1.0
    box = 48.0 * square_around(mask[None, None], 0.0)[0]
    torch.testing.assert_close(box, torch.tensor([20.0, 20.0, 36.0, 36.0]), atol=0.6, rtol=0.0)


def test_where_nothing_is_found_the_picture_is_encoded_as_it_is():
    model = finding(build(), rectangle(2, 2, 6, 6), confidence=0.1)
    x = torch.rand(3, 3, 64, 64)
    region = model.locate(x)
    torch.testing.assert_close(region.box, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(3, 4))
    from training.layers.resample import resize

    torch.testing.assert_close(model.cut_out(x, region), resize(x, 16))


def test_a_sure_finder_shows_the_item_alone_on_white():
    """The same item at another place on another background gives nearly the same vector."""
    item = torch.rand(3, 24, 24)
    vectors = []
    for place, shade in ((4, 0.2), (36, 0.7)):
        x = torch.full((1, 3, 64, 64), shade)
        x[0, :, place : place + 24, place : place + 24] = item
        cells = slice(place // 4, place // 4 + 6)
        mask = torch.zeros(16, 16)
        mask[cells, cells] = 1.0
        model = finding(build(margin=0.25), mask, confidence=0.95)
        seen = model.cut_out(x, model.locate(x))
        assert float(seen[0, :, 0, 0].min()) > 0.99
        vectors.append(torch.nn.functional.normalize(model.embed(x), dim=1))
    assert float((vectors[0] * vectors[1]).sum()) > 0.97


def test_beyond_the_picture_all_is_white():
    """An item that the frame cuts off does not go on beyond it."""
    model = finding(build(margin=0.5), rectangle(8, 4, 16, 12), confidence=0.95)
    x = torch.zeros(1, 3, 64, 64)
    seen = model.cut_out(x, model.locate(x))
    assert float(seen[0, :, 8, -1].min()) > 0.99 and float(seen[0, :, 8, 8].max()) < 0.01
    _, regions = model.embed_with_regions(x, torch.tensor([False]))
    torch.testing.assert_close(regions[0, :4], torch.tensor([0.25, 0.0, 1.0, 1.0]), atol=0.03, rtol=0.0)


def test_confidence_blends_between_the_item_and_the_whole():
    sides = []
    for confidence in (0.35, 0.45, 0.55):
        model = finding(build(doubt=0.3, trust=0.6), rectangle(4, 4, 8, 8), confidence)
        box = model.locate(torch.rand(1, 3, 64, 64)).box[0]
        sides.append(float(box[2] - box[0]))
    assert 1.0 > sides[0] > sides[1] > sides[2] > 0.25


def test_a_framed_picture_is_used_whole_but_its_background_still_goes():
    model = finding(build(), rectangle(4, 4, 8, 8), confidence=0.95)
    x = torch.rand(2, 3, 64, 64)
    region = model.locate(x, torch.tensor([True, False]))
    torch.testing.assert_close(region.box[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert float(region.box[1, 2] - region.box[1, 0]) < 0.5
    assert float(model.cut_out(x, region)[0, :, 0, 0].min()) > 0.99


def test_a_second_pass_looks_again_at_what_the_first_cut_out():
    once, twice = build(doubt=0.0, trust=0.01), build(doubt=0.0, trust=0.01, passes=2)
    twice.load_state_dict(once.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert not torch.equal(once.embed(x), twice.embed(x))


def test_a_background_of_one_colour_can_be_spared():
    plain, busy = torch.full((1, 3, 64, 64), 0.8), torch.rand(1, 3, 64, 64)
    for x in (plain, busy):
        x[:, :, 20:40, 20:40] = 0.1
    x = torch.cat([plain, busy])
    model = finding(build(margin=0.5, spare_plain=True), rectangle(6, 6, 8, 8), 0.99)
    seen = model.cut_out(x, model.locate(x))
    torch.testing.assert_close(seen[0], finding(build(margin=0.5, paint=0.0), rectangle(6, 6, 8, 8), 0.99).cut_out(
        x, model.locate(x)
    )[0])  # fmt: skip
    assert (seen[1, :, 0] == 1.0).all()  # painted


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_plain_rim_is_of_one_colour(level: float, share: float):
    x = torch.full((1, 3, 96, 96), level)
    x[:, :, :, : round(share * 96)] = (level + 0.5) % 1.0
    found = float(plainness(x))
    assert 0 <= found <= 1
    if round(share * 96) in (0, 96):
        assert found == 1.0
    if 0.3 < share < 0.7:
        assert found == 0.0


def test_beside_adds_a_share_of_the_whole_pictures_unit_vector():
    x = torch.rand(2, 3, 64, 64)
    mask = rectangle(2, 2, 9, 8)
    item, whole = (finding(build(), mask, confidence).embed(x) for confidence in (0.99, 0.01))
    both = finding(build(beside=0.25), mask, 0.99).embed(x)
    expected = 0.75 * item / item.norm(dim=1, keepdim=True) + 0.25 * whole / whole.norm(dim=1, keepdim=True)
    torch.testing.assert_close(both, expected / expected.norm(dim=1, keepdim=True), atol=2e-3, rtol=0.0)
    assert not torch.allclose(both, item / item.norm(dim=1, keepdim=True), atol=1e-2)


def test_items_are_put_back_where_they_were_cut_out():
    x = torch.ones(1, 3, 64, 64)
    x[:, :, 16:48, 8:40] = torch.rand(1, 3, 1, 1)
    box = torch.tensor([[8 / 64, 16 / 64, 40 / 64, 48 / 64]])
    from training.layers.resample import crop

    torch.testing.assert_close(put_back(crop(x, box, 32), box, 64), x, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"channels": 1}, "channels must be 3"),
        ({"size": 16}, "size must be at least the finder's 32 pixels"),
        ({"margin": -0.1}, "margin must be"),
        ({"doubt": 0.7}, "doubt must be below trust"),
        ({"paint": 2.0}, "paint must be"),
        ({"passes": 3}, "passes must be 1 or 2"),
        ({"beside": 1.0}, "beside must be at least 0 and below 1"),
        (
            {"beside": 0.5, "encoder": {"family": "onnx", "config": {"size": 16, "channels": 3, "metric": "l2"}}},
            "beside must be 0 for an inner encoder with metric 'l2'",
        ),
        ({"finder": {**FINDER, "normalisation": True}}, "finder.normalisation must be false"),
        ({"encoder": {"family": "pixels", "config": {"channels": 1}}}, "encoder.channels must be 3"),
        ({"encoder": {"family": "nothing"}}, "family must be one of"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        build(**changes)


@pytest.fixture(scope="module")
def inner() -> Encoder:
    torch.manual_seed(3)
    config = MODELS["vae"].config(
        size=16, widths=(4, 6), decoder_widths=(6, 4), latent_dim=5, normalisation="none", foreground=True
    )
    model = MODELS["vae"].model(config)
    card = {"description": "a small one", "figures": {"val": 1.0}, "seed": 7}
    return Encoder(model, family="vae", config=asdict(config), preprocessing=Preprocessing(16, 3, "pad"), card=card)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [pytest.param({}, marks=pytest.mark.slow), {"beside": 0.4, "spare_plain": True}])
def test_put_before_a_vae_it_is_an_encoder_like_any_other(inner: Encoder, settings: dict[str, Any], tmp_path: Path):
    finder = Finder(FinderConfig(**FINDER)).eval()
    directory = write_item_first(inner, finder, tmp_path / "first", size=64, doubt=0.0, trust=1.0, **settings)
    loaded = load_encoder(directory)
    assert (
        loaded.family == "item-first"
        and loaded.dim == inner.dim
        and loaded.preprocessing == Preprocessing(64, 3, "pad")
    )
    assert loaded.card["inner_encoder_id"] == inner.encoder_id and loaded.card["seed"] == 7
    assert "figures" not in loaded.card  # those were of the inner encoder
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    embedder = load_embedder(directory, threads=1)
    np.testing.assert_allclose(embedder.embed(pixels.numpy()), loaded.encode(pixels).numpy(), atol=1e-4)
    vectors, regions = embedder.embed_with_regions(pixels.numpy(), framed=False)
    expected, boxes = loaded.encode_with_regions(pixels, torch.zeros(3, dtype=torch.bool))
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(regions, boxes.numpy(), atol=1e-4)
    assert embedder.embed(pixels.numpy()[:0]).shape == (0, inner.dim)
    assert isinstance(loaded.model, GenerativeModel) and isinstance(loaded.model, LikelihoodModel)
    assert loaded.reconstruct(pixels).shape == (3, 3, 64, 64)
    assert loaded.log_likelihood(pixels).nats.shape == (3,)
    assert loaded.sample(2).shape == (2, 3, 16, 16)


def test_an_encoder_that_takes_pictures_whole_tells_no_regions(inner: Encoder, tmp_path: Path):
    directory = inner.save(tmp_path / "whole")
    pixels = np.zeros((2, 3, 16, 16), np.uint8)
    assert load_embedder(directory).embed_with_regions(pixels, framed=False)[1] is None
    with pytest.raises(EncoderError, match="encodes whole images"):
        inner.encode_with_regions(torch.from_numpy(pixels), torch.zeros(2, dtype=torch.bool))


def test_what_cannot_be_put_behind_a_finder_is_refused(inner: Encoder):
    finder = Finder(FinderConfig(**FINDER)).eval()
    first = item_first(inner, finder, size=64)
    with pytest.raises(EncoderError, match="already finds the item"):
        item_first(first, finder, size=64)
    grey = MODELS["pixels"].config(size=16, channels=1)
    model = MODELS["pixels"].model(grey)
    encoder = Encoder(model, family="pixels", config=asdict(grey), preprocessing=Preprocessing(16, 1))
    with pytest.raises(EncoderError, match="needs colour"):
        item_first(encoder, finder, size=64)


def test_an_encoder_without_decoder_gains_none_behind_a_finder():
    assert not isinstance(build(), GenerativeModel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_inner_encoder_keeps_the_precision_that_it_is_stored_in(inner: Encoder, tmp_path: Path, dtype: torch.dtype):
    stored = Encoder(inner.model, family="vae", config=inner.config, preprocessing=inner.preprocessing, stored_as=dtype)
    loaded = load_encoder(stored.save(tmp_path / "inner"))
    first = item_first(loaded, Finder(FinderConfig(**FINDER)).eval(), size=64)
    types = load_encoder(first.save(tmp_path / "first")).stored_types()
    assert {t for name, t in types.items() if name.startswith("encoder.") and t.is_floating_point} == {dtype}
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, first.model.encoder.state_dict()[name])
