"""The fusion's cosine is the weighted mean of its parts' cosines; parts see what they would see alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import draw_photo
from tests.training.onnx.graphs import save, vector_graph
from training.embedder import load_embedder
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.finder.network import Finder, FinderConfig
from training.fusing import fuse, save_fusion
from training.item_first import item_first
from training.layers.resample import resize
from training.models import MODELS
from training.models.families import Part
from training.models.fusion import FusionConfig
from training.onnx.importing import ImportRequest, import_onnx
from training.preprocessing import Fit, Preprocessing
from training.reference import describe_encoder


def save_vae(directory: Path, *, size: int = 16, fit: Fit = "stretch", stored_as: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(size)
    config = MODELS["vae"].config(size=size, widths=(6, 8), decoder_widths=(8, 6), latent_dim=5)
    return Encoder(
        MODELS["vae"].model(config),
        family="vae",
        config=asdict(config),
        preprocessing=Preprocessing(size, fit=fit),
        card={"name": directory.name, "trained_from": f"label-free: {size}"},
        stored_as=stored_as,
    ).save(directory)


def save_import(directory: Path, **request: Any) -> Path:
    file = save(vector_graph(), directory.with_suffix(".onnx"))
    return import_onnx(file, directory, ImportRequest(trained_from="somebody's labels", **request)).directory


def pixels(count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def test_the_cosine_is_the_weighted_mean_of_the_parts_cosines(tmp_path: Path) -> None:
    parts = [save_vae(tmp_path / "vae"), save_pixels(tmp_path / "pixels"), save_import(tmp_path / "graph")]
    fusion = fuse(parts, [0.5, 0.2, 0.3])
    vectors = fusion.encode(torch.from_numpy(pixels(7)))
    expected = torch.zeros(7, 7)
    for part, weight in zip(parts, (0.5, 0.2, 0.3), strict=True):
        alone = load_encoder(part).encode(torch.from_numpy(pixels(7)))
        expected += weight * alone @ alone.T
    torch.testing.assert_close(vectors @ vectors.T, expected, atol=1e-5, rtol=0)
    assert fusion.dim == vectors.shape[1] == 5 + 768 + 6 and fusion.metric == "cosine"


def save_pixels(directory: Path) -> Path:
    config = MODELS["pixels"].config(size=16)
    model = MODELS["pixels"].model(config)
    return Encoder(model, family="pixels", config=asdict(config), preprocessing=Preprocessing(16)).save(directory)


def test_a_smaller_part_sees_the_photo_at_its_own_size(tmp_path: Path) -> None:
    parts = [save_vae(tmp_path / "small", size=16), save_vae(tmp_path / "large", size=64)]
    fusion = fuse(parts)
    assert fusion.preprocessing == Preprocessing(64)
    photos = [draw_photo(number, (256, 192)) for number in range(8)]
    together = torch.stack([fusion.prepare(photo) for photo in photos]).float() / 255
    alone = load_encoder(parts[0])
    expected = alone.encode(torch.stack([alone.prepare(photo) for photo in photos]))
    with torch.inference_mode():
        seen = fusion.model.part_vectors(together)[0]
    # Pillow reduces to 64 and then a matrix to 16, so edges are a little softer than reduced at once.
    assert float((seen * expected).sum(dim=1).min()) > 0.98


def test_a_grey_part_sees_pillows_luma() -> None:
    part = {"family": "pixels", "config": {"size": 16, "channels": 1}}
    model = MODELS["fusion"].model(FusionConfig(16, 3, (part, part)))  # type: ignore[arg-type]
    photo = np.asarray(draw_photo(1).resize((16, 16)))
    grey = np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float32).ravel()
    grey -= grey.mean()
    seen = model.part_vectors(torch.from_numpy(photo.transpose(2, 0, 1)[None] / np.float32(255)))[0]
    np.testing.assert_allclose(seen[0].numpy(), grey / np.linalg.norm(grey), atol=2e-3)


def test_a_fusion_of_exportable_parts_embeds_by_onnx_runtime_and_keeps_its_parts_size(tmp_path: Path) -> None:
    parts = [save_vae(tmp_path / str(size), size=size, stored_as=torch.float16) for size in (16, 32)]
    described = save_fusion(fuse(parts, [1, 3]), tmp_path / "fusion")
    assert described.config["weights"] == [0.25, 0.75]
    by_onnx, by_torch = load_embedder(described.directory), load_encoder(described.directory)
    assert "onnx_sha256" in described.card
    images = pixels(9, 32)
    np.testing.assert_allclose(by_onnx.embed(images), by_torch.encode(torch.from_numpy(images)).numpy(), atol=1e-4)
    weights = [(folder / "weights.safetensors").stat().st_size for folder in (*parts, described.directory)]
    assert weights[2] < sum(weights[:2]) * 1.2, "half precision stays half precision"


def save_finding(directory: Path, doubt: float, seed: int) -> Path:
    """An encoder that finds the item first; whatever its finder says weighs something from `doubt` on."""
    torch.manual_seed(seed)
    finder = {"size": 16, "widths": (4, 4), "depths": (0, 0), "decoder_widths": (4,), "normalisation": False}
    inner = {"family": "pixels", "config": {"size": 16, "channels": 3}}
    config = MODELS["item-first"].config(size=32, finder=finder, encoder=inner, doubt=doubt, trust=1.0)
    model = MODELS["item-first"].model(config)
    values, card = json.loads(json.dumps(asdict(config))), {"name": directory.name}
    return Encoder(
        model, family="item-first", config=values, preprocessing=Preprocessing(32), card=card
    ).save(directory)  # fmt: skip


@pytest.mark.slow
def test_a_fusion_tells_the_region_of_its_first_part_that_finds_the_item(tmp_path: Path) -> None:
    finding = [save_finding(tmp_path / f"finding{n}", doubt, n) for n, doubt in enumerate((0.0, 0.2))]
    fusion = fuse([save_pixels(tmp_path / "pixels"), *finding], [0.2, 0.5, 0.3])
    described = save_fusion(fusion, tmp_path / "fusion")
    images, framed = torch.from_numpy(pixels(6, 32)), torch.tensor([False, True] * 3)
    vectors, regions = fusion.encode_with_regions(images, framed)
    expected = torch.zeros(6, 6)
    for part, weight in zip((tmp_path / "pixels", *finding), (0.2, 0.5, 0.3), strict=True):
        encoder = load_encoder(part)
        if part in finding:
            alone = encoder.encode_with_regions(images, framed)[0]
        else:
            alone = encoder.encode(resize(images.float() / 255, 16))
        expected += weight * alone @ alone.T
    torch.testing.assert_close(vectors @ vectors.T, expected, atol=1e-5, rtol=0)
    first = load_encoder(finding[0]).encode_with_regions(images, framed)[1]
    torch.testing.assert_close(regions, first)
    assert not torch.allclose(regions, load_encoder(finding[1]).encode_with_regions(images, framed)[1], atol=1e-3)
    torch.testing.assert_close(
        fusion.encode(images), fusion.encode_with_regions(images, torch.zeros(6, dtype=torch.bool))[0]
    )
    by_onnx = load_embedder(described.directory, threads=1)
    for is_framed in (False, True):
        found, places = by_onnx.embed_with_regions(images.numpy(), framed=is_framed)
        wanted, boxes = fusion.encode_with_regions(images, torch.full((6,), is_framed))
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
        np.testing.assert_allclose(places, boxes.numpy(), atol=1e-4)
    assert np.abs(by_onnx.embed(images.numpy()) - found).max() > 1e-3, "a region of one's own reaches the parts"


def test_a_fusion_of_parts_that_take_pictures_whole_tells_no_region(tmp_path: Path) -> None:
    described = save_fusion(fuse([save_vae(tmp_path / "vae"), save_pixels(tmp_path / "pixels")]), tmp_path / "fusion")
    assert load_embedder(described.directory).embed_with_regions(pixels(2), framed=True)[1] is None
    with pytest.raises(EncoderError, match="encodes whole images"):
        load_encoder(described.directory).encode_with_regions(
            torch.from_numpy(pixels(2)), torch.zeros(2, dtype=torch.bool)
        )


def test_a_fusion_that_finds_the_item_is_not_put_behind_a_finder(tmp_path: Path) -> None:
    fusion = fuse([save_finding(tmp_path / "finding", 0.0, 0), save_pixels(tmp_path / "pixels")])
    finder = Finder(FinderConfig(normalisation=False))
    with pytest.raises(EncoderError, match="already finds the item"):
        item_first(fusion, finder, size=96)


def test_a_fusion_with_an_imported_graph_comes_back_from_disk(tmp_path: Path) -> None:
    made = fuse([save_import(tmp_path / "graph"), save_vae(tmp_path / "vae")], [0.7, 0.3])
    described = save_fusion(made, tmp_path / "fusion")
    assert not (described.directory / "encoder.onnx").exists()
    loaded = load_encoder(described.directory)
    assert loaded.encoder_id == made.encoder_id == described.encoder_id
    expected = made.encode(torch.from_numpy(pixels(5)))
    assert torch.equal(loaded.encode(torch.from_numpy(pixels(5))), expected)
    np.testing.assert_array_equal(load_embedder(described.directory).embed(pixels(5)), expected.numpy())


def test_a_fusion_can_be_a_part_of_another(tmp_path: Path) -> None:
    parts = [save_vae(tmp_path / "vae"), save_pixels(tmp_path / "pixels"), save_import(tmp_path / "graph")]
    inner = save_fusion(fuse(parts[:2], [0.6, 0.4]), tmp_path / "inner").directory
    nested = load_encoder(save_fusion(fuse([inner, parts[2]], [0.5, 0.5]), tmp_path / "nested").directory)
    flat = fuse(parts, [0.3, 0.2, 0.5])
    images = torch.from_numpy(pixels(4))
    torch.testing.assert_close(nested.encode(images), flat.encode(images), atol=1e-6, rtol=0)


def test_the_card_says_what_each_part_was_trained_from(tmp_path: Path) -> None:
    parts = [save_import(tmp_path / "graph"), save_vae(tmp_path / "vae")]
    described = save_fusion(fuse(parts, [0.7, 0.3]), tmp_path / "both")
    assert described.trained_from == "graph: somebody's labels; vae: label-free: 16"
    assert described.card["name"] == "both"
    assert described.card["description"] == "Fusion of graph (0.7) and vae (0.3)"
    ids = [part["encoder_id"] for part in described.card["parts"]]
    assert ids == [describe_encoder(part).encoder_id for part in parts]


def test_encoders_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    vae = save_vae(tmp_path / "vae")
    with pytest.raises(EncoderError, match="vae has fit stretch, cropped has fit crop; import or train with one fit"):
        fuse([vae, save_vae(tmp_path / "cropped", fit="crop")])
    with pytest.raises(EncoderError, match="part 'onnx' has metric 'l2'; a fusion needs parts with metric 'cosine'"):
        fuse([vae, save_import(tmp_path / "distance", metric="l2")])
    with pytest.raises(EncoderError, match="give at least two encoders"):
        fuse([vae])
    for weights in ([1.0], [0.0, 1.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(EncoderError, match="give 2 numbers above 0, one per encoder"):
            fuse([vae, vae], weights)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"weights": (0.5, 0.6)}, "weights must be above 0 with sum 1, not 0.5, 0.6"),
        ({"weights": (1.0, 0.0)}, "weights must be above 0 with sum 1"),
        ({"weights": (1.0,)}, "weights must be 2, one per part, not 1"),
        ({"parts": (Part(family="hog"),), "weights": (1.0,)}, "parts must be at least two, not 1"),
        ({"channels": 1}, "channels must be 3, as part 'pixels' needs colour, not 1"),
    ],
)
def test_a_config_that_cannot_be_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FusionConfig(**values)
