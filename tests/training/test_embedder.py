"""Embedding by ONNX Runtime and by torch: the same vectors, and no torch where there is a file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import draw_photo, save_pixels_encoder
from training.data.decode import Decoded
from training.embedder import load_embedder, prepare
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.models import MODELS
from training.onnx.export import TOLERANCE, add_onnx
from training.preprocessing import Preprocessing
from training.reference import ONNX_FILE, describe_encoder


def save_encoder(family: str, directory: Path) -> Path:
    """A small encoder of a family with random weights."""
    torch.manual_seed(0)
    options = {
        "vae": {"size": 32, "widths": (8, 16), "decoder_widths": (16, 8), "latent_dim": 12},
        "pca": {"size": 32, "components": 5},
        "pixels": {"size": 32},
        "hog": {"size": 32},
    }[family]
    config = MODELS[family].config(**options)
    model = MODELS[family].model(config)
    if family == "pca":
        model.partial_fit(torch.rand(64, 3, 32, 32))
    return Encoder(model, family=family, config=asdict(config), preprocessing=Preprocessing(size=32)).save(directory)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("family", ["vae", "pca", "pixels"])
def test_the_onnx_file_gives_what_torch_gives_in_any_batch(family: str, tmp_path: Path) -> None:
    directory = save_encoder(family, tmp_path / "encoder")
    encoder_id = describe_encoder(directory).encoder_id
    by_torch = load_embedder(directory)
    assert add_onnx(directory) == directory / ONNX_FILE
    by_onnx = load_embedder(directory)
    assert type(by_torch) is not type(by_onnx)
    assert by_onnx.described.encoder_id == encoder_id
    for count in (1, 2, 33):
        first, second = by_torch.embed(pixels(count)), by_onnx.embed(pixels(count))
        assert second.dtype == np.float32 and second.shape == (count, by_onnx.described.dim)
        assert np.abs(first - second).max() <= TOLERANCE
        np.testing.assert_allclose(np.linalg.norm(second, axis=1), 1, atol=1e-5)


def test_a_family_that_cannot_be_exported_is_embedded_by_torch(tmp_path: Path) -> None:
    directory = save_encoder("hog", tmp_path / "encoder")
    assert add_onnx(directory) is None
    vectors = load_embedder(directory).embed(pixels(2))
    np.testing.assert_array_equal(vectors, load_encoder(directory).encode(torch.from_numpy(pixels(2))).numpy())


def test_a_changed_onnx_file_is_refused(tmp_path: Path) -> None:
    directory = save_encoder("pixels", tmp_path / "encoder")
    add_onnx(directory)
    data = bytearray((directory / ONNX_FILE).read_bytes())
    data[-20] ^= 1
    (directory / ONNX_FILE).write_bytes(bytes(data))
    with pytest.raises(EncoderError, match="does not match the checksum in card.json"):
        load_embedder(directory)


@pytest.mark.parametrize("wrong", [np.zeros((1, 3, 16, 16), np.uint8), np.zeros((1, 3, 32, 32), np.float32)])
def test_images_of_another_shape_or_kind_are_refused(wrong: np.ndarray, tmp_path: Path) -> None:
    directory = save_encoder("pixels", tmp_path / "encoder")
    for _ in range(2):
        with pytest.raises(EncoderError, match="expected uint8"):
            load_embedder(directory).embed(wrong)
        add_onnx(directory)


def test_prepare_is_the_encoders_own(tmp_path: Path) -> None:
    directory = save_pixels_encoder(tmp_path / "encoder", 16)
    photo = np.asarray(draw_photo(1))
    batch = prepare(load_embedder(directory), Decoded(photo, *photo.shape[1::-1]))
    np.testing.assert_array_equal(batch[0], load_encoder(directory).prepare(photo).numpy())


def test_the_shipped_default_embeds_without_importing_torch() -> None:
    code = (
        "import sys, numpy as np; from training.embedder import load_embedder; e = load_embedder('default');"
        "s = e.described.preprocessing; print(e.embed(np.zeros((1, s.channels, s.size, s.size), np.uint8)).shape[1]);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(describe_encoder("default").dim), "False"]


@pytest.mark.parametrize("name", ["default", "accurate", "small", "vae-clothing-64", "pixels", "hog"])
def test_shipped_encoders_are_whole_and_small_and_agree(name: str) -> None:
    described = describe_encoder(name)
    # Half of it is for torch alone.
    limit = {"accurate": 32, "default": 22}.get(name, 16)
    assert sum(path.stat().st_size for path in described.directory.iterdir()) <= limit * 2**20
    side = described.preprocessing.size
    images = np.random.default_rng(0).integers(0, 256, (4, described.preprocessing.channels, side, side), np.uint8)
    by_torch = load_encoder(name).encode(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(load_embedder(name).embed(images), by_torch, atol=TOLERANCE)
