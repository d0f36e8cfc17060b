"""The fusion's cosine is the weighted mean of its parts' cosines; parts see what they would see alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import draw_photo
from tests.training.graphs import save, vector_graph
from training.embedder import load_embedder
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.fusing import fuse, save_fusion
from training.importing import ImportRequest, import_onnx
from training.models import MODELS
from training.models.families import Part
from training.models.fusion import FusionConfig
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
    with pytest.raises(EncoderError, match="part 'onnx' has metric 'l2'; a fusion is of cosines"):
        fuse([vae, save_import(tmp_path / "distance", metric="l2")])
    with pytest.raises(EncoderError, match="give two encoders or more"):
        fuse([vae])
    for weights in ([1.0], [0.0, 1.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(EncoderError, match="give 2 numbers above 0, one for each encoder"):
            fuse([vae, vae], weights)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"weights": (0.5, 0.6)}, "weights must be above 0 with sum 1, not 0.5, 0.6"),
        ({"weights": (1.0, 0.0)}, "weights must be above 0 with sum 1"),
        ({"weights": (1.0,)}, "weights must be one for each of 2 parts, not 1"),
        ({"parts": (Part(family="hog"),), "weights": (1.0,)}, "parts must be two or more, not 1"),
        ({"channels": 1}, "channels must be 3, as part 'pixels' sees colour, not 1"),
    ],
)
def test_a_config_that_cannot_be_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FusionConfig(**values)
