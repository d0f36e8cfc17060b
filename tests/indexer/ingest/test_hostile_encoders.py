"""Encoder directories that were changed or made to harm: refused in one line before anything is indexed."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.errors import CorruptError, MismatchError
from indexer.ingest.ingest import index_source
from indexer.search.searcher import Searcher
from tests.conftest import write_photos
from training.errors import EncoderError
from training.models import MODELS
from training.reference import FAMILY_NAMES, OF_DRAWINGS, PRETRAINED, describe_encoder
from training.weights_header import check_safetensors

Harm = Callable[[Path], None]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "shop", 4)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A small encoder with an ONNX file, to be changed."""
    return shutil.copytree(PRETRAINED / "pixels", tmp_path / "encoder")


def replace_onnx(encoder: Path) -> None:
    """Other ONNX weights under the same id, with a card that agrees with them."""
    path = encoder / "encoder.onnx"
    data = bytearray(path.read_bytes())
    data += b"\x72\x04\x0a\x02\x0a\x00"  # an entry of metadata: another file that ONNX Runtime loads
    path.write_bytes(data)
    change("card.json", onnx_sha256=hashlib.sha256(data).hexdigest())(encoder)


def change(name: str, **values: Any) -> Harm:
    """Set values of a JSON file and keep the card's id true, so that only these values are wrong; None removes one."""

    def harm(encoder: Path) -> None:
        path = encoder / name
        document = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
        if name == "encoder.json":
            agree(encoder)

    return harm


def weights(make: Callable[[bytes], bytes]) -> Harm:
    def harm(encoder: Path) -> None:
        path = encoder / "weights.safetensors"
        path.write_bytes(make(path.read_bytes()))
        agree(encoder)

    return harm


def agree(encoder: Path) -> None:
    data = (encoder / "weights.safetensors").read_bytes() + (encoder / "encoder.json").read_bytes()
    change("card.json", encoder_id=hashlib.sha256(data).hexdigest())(encoder)


def lying(header: dict[str, Any], body: bytes = b"") -> Harm:
    data = json.dumps(header).encode()
    return weights(lambda _: len(data).to_bytes(8, "little") + data + body)


HARMS: dict[str, tuple[Harm, str]] = {
    "card without id": (change("card.json", encoder_id=None), "records no encoder_id"),
    "card with a number as id": (change("card.json", encoder_id=7), "records no encoder_id"),
    "no family": (change("encoder.json", family=None), "has no family"),
    "unknown family": (change("encoder.json", family="oracle"), "family 'oracle' is not one of ae, backbone"),
    "family of another type": (change("encoder.json", family=["vae"]), "family .'vae'. is not one of"),
    "no dim": (change("encoder.json", dim=None), "has no dim"),
    "dim 1e9": (change("encoder.json", dim=1e9), "dim 1000000000.0 is not a whole number"),
    "huge dim": (change("encoder.json", dim=10**9), "dim 1000000000 is not a whole number"),
    "negative dim": (change("encoder.json", dim=-3), "dim -3 is not a whole number"),
    "dim as text": (change("encoder.json", dim="64"), "dim '64' is not a whole number"),
    "dim as truth": (change("encoder.json", dim=True), "dim True is not a whole number"),
    "unknown metric": (change("encoder.json", metric="dot"), "metric 'dot' is neither"),
    "config of another type": (change("encoder.json", config=3), "config 3 is not a JSON object"),
    "no preprocessing": (change("encoder.json", preprocessing=None), "has no preprocessing"),
    "pickle": (weights(lambda _: pickle.dumps({"weight": 1})), "are a pickle"),
    "zip of pickles": (weights(lambda _: b"PK\x03\x04" + bytes(100)), "are a pickle"),
    "cut weights": (weights(lambda data: data[:5]), "length of the header is wrong"),
    "header beyond the file": (weights(lambda data: b"\xff" * 8 + data[8:]), "length of the header is wrong"),
    "header that is no JSON": (weights(lambda _: (4).to_bytes(8, "little") + b"{[}]"), "header is malformed"),
    "header that is a list": (lying([]), "header is malformed"),  # type: ignore[arg-type]
    "tensor beyond the file": (
        lying({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}), "header of the weights lies",
    ),
    "shape that lies": (
        lying({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, bytes(4)), "bytes do not fill",
    ),
    "gap": (
        lying({"a": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}, bytes(4)), "overlap or leave gaps",
    ),
    "unknown type": (
        lying({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "header is malformed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMS)
def test_a_harmful_encoder_is_refused_before_anything_is_indexed(
    name: str, home: Home, shop: Path, encoder: Path
) -> None:
    harm, message = HARMS[name]
    harm(encoder)
    with pytest.raises(EncoderError, match=message) as error:
        index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    assert "\n" not in str(error.value)
    assert home.catalogue.collections.all() == []
    assert home.catalogue.encoders.all() == []


def test_other_onnx_weights_under_a_known_id_are_refused(home: Home, shop: Path, encoder: Path) -> None:
    index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    before = home.catalogue.encoders.all()
    replace_onnx(encoder)
    write_photos(shop, 1, start=4)
    with pytest.raises(MismatchError, match="encoder.onnx: is not the ONNX file that encoder .* was registered with"):
        index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    assert home.catalogue.encoders.all() == before
    assert len(home.catalogue.images.photos(home.catalogue.collection_id("default"))) == 4


def test_other_onnx_weights_under_the_id_of_a_shipped_encoder_are_refused(
    home: Home, shop: Path, encoder: Path
) -> None:
    replace_onnx(encoder)
    with pytest.raises(MismatchError, match="is not the ONNX file"):
        index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    assert home.catalogue.encoders.all() == []


def test_replacing_the_onnx_file_of_the_homes_copy_with_its_card_is_found(
    home: Home, shop: Path, encoder: Path
) -> None:
    change("encoder.json", note="mine")(encoder)  # another id than the shipped one's
    index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    (copy,) = (home.path / "encoders").iterdir()
    registered = (copy / "encoder.onnx").read_bytes()
    replace_onnx(copy)
    photo = next(shop.rglob("*.jpg")).read_bytes()
    with pytest.raises(CorruptError, match="is not the ONNX file"):
        Searcher(home).search_image("default", photo)
    index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    assert (copy / "encoder.onnx").read_bytes() == registered
    assert Searcher(home).search_image("default", photo, k=1).results[0].score == pytest.approx(1, abs=1e-4)


def test_the_checksum_in_the_catalogue_is_not_replaced_by_a_card(home: Home, shop: Path, encoder: Path) -> None:
    change("encoder.json", note="mine")(encoder)
    index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    (before,) = home.catalogue.encoders.all()
    home.amend_card(before.encoder_id, licence="MIT")
    (after,) = home.catalogue.encoders.all()
    assert after.card == {**before.card, "licence": "MIT"}
    (copy,) = (home.path / "encoders").iterdir()
    change("card.json", onnx_sha256="0" * 64)(copy)
    with pytest.raises(CorruptError, match="is not the ONNX file"):
        home.encoder(before.encoder_id)
    home.add_encoder(describe_encoder(encoder))
    assert home.encoder(before.encoder_id).card == after.card


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 19280])
def test_a_header_whose_length_looks_like_a_pickle_is_read(length: int) -> None:
    header = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode().ljust(length)
    check_safetensors(length.to_bytes(8, "little") + header + bytes(4))


def test_the_family_names_are_those_of_the_models() -> None:
    assert list(FAMILY_NAMES) == sorted(MODELS)
    assert list(OF_DRAWINGS) == [name for name in FAMILY_NAMES if MODELS[name].of_drawings]
