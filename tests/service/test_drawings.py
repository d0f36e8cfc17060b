"""A collection of drawings over HTTP: search by an SVG file, storing, redrawing, and what is refused."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from service.app import create_app
from service.settings import Settings
from tests.drawings import KINDS, draw_shape, svg_of, write_shapes
from tests.service.conftest import Serve, running
from training.data.decode import decode_image
from training.models.sketch_rnn import SketchRnn, SketchRnnConfig
from training.sketches.encoder import SketchEncoder, load_sketch_encoder
from training.sketches.preparing import DrawingPreparation

SHAPES_URL = "/v1/collections/shapes"


@pytest.fixture(scope="module")
def drawn(drawn_home: Path) -> Iterator[httpx.Client]:
    with (
        running(create_app(Settings(home=drawn_home, query_log=0))) as url,
        httpx.Client(base_url=url, timeout=60) as opened,
    ):
        yield opened


def search(client: httpx.Client, data: bytes, collection: str = "shapes", **form: str) -> httpx.Response:
    return client.post(f"/v1/collections/{collection}/search", files={"image": data}, data={"k": "5", **form})


@pytest.mark.parametrize("number", range(1002, 1005))
def test_a_drawing_finds_drawings_of_its_kind(number: int, drawn: httpx.Client) -> None:
    answer = search(drawn, svg_of(draw_shape(number)))
    assert answer.status_code == 200, answer.text
    kinds = [hit["attributes"]["category"] for hit in answer.json()["results"]]
    assert kinds == [KINDS[number % 3]] * 5


def test_the_first_hit_is_the_drawing_itself_with_the_vector_of_the_encoder(
    drawn: httpx.Client, sketch_encoder_dir: Path
) -> None:
    first, second = search(drawn, svg_of(draw_shape(7))).json()["results"][:2]
    assert first["item_id"].endswith("0007.svg") and first["score"] == pytest.approx(1.0, abs=1e-5)
    query, found = load_sketch_encoder(sketch_encoder_dir).embed(
        [draw_shape(7), draw_shape(int(second["item_id"][-8:-4]))]
    )
    assert second["score"] == pytest.approx(float(query @ found), abs=1e-2)  # files have two decimals


def test_encoders_say_what_they_take(drawn: httpx.Client) -> None:
    inputs = {each["family"]: each["input"] for each in drawn.get("/v1/encoders").json()["encoders"]}
    assert inputs == {"pixels": "images", "sketch-rnn": "drawings"}


def test_a_drawing_is_shown_as_a_picture_of_its_lines(drawn: httpx.Client) -> None:
    url = search(drawn, svg_of(draw_shape(0))).json()["results"][0]["image_url"]
    answer = drawn.get(url, params={"width": 200})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    picture = decode_image(answer.content).pixels
    assert picture.shape == (200, 200, 3)
    assert 0.01 < float((picture < 100).mean()) < 0.2  # a thin dark line on white
    assert picture[100, 100].min() > 200 and picture[2, 2].min() > 200  # a circle


def test_the_model_draws_a_drawing_again(drawn: httpx.Client) -> None:
    data = svg_of(draw_shape(1004))  # a cross
    as_file = drawn.post(f"{SHAPES_URL}/redraw", files={"image": data})
    as_json = drawn.post(f"{SHAPES_URL}/redraw", json={"image_base64": base64.b64encode(data).decode()})
    assert as_file.status_code == as_json.status_code == 200, as_file.text
    strokes = as_file.json()["strokes"]
    assert as_json.json()["strokes"] == strokes
    assert len(strokes) == 2 and all(len(stroke) >= 2 for stroke in strokes)
    redrawn = svg_of([np.array(stroke) for stroke in strokes])
    kinds = [hit["attributes"]["category"] for hit in search(drawn, redrawn).json()["results"]]
    assert kinds == ["cross"] * 5


@pytest.mark.parametrize(
    ("path", "data", "status", "message"),
    [
        ("shapes/search", "photo", 422, "a photo cannot be compared with drawings"),
        ("shapes/redraw", "photo", 422, "a photo cannot be compared with drawings"),
        ("shop/search", "drawing", 422, "an SVG drawing cannot be compared with photos"),
        ("shop/redraw", "drawing", 422, "collection 'shop' has photos; only drawings are redrawn"),
        ("nowhere/redraw", "drawing", 404, "no collection 'nowhere'"),
        ("shapes/search", "empty", 422, "the SVG file has nothing to draw"),
        ("shapes/search", "damaged", 422, "the SVG file"),
    ],
)
def test_what_does_not_fit_is_refused(
    path: str, data: str, status: int, message: str, drawn: httpx.Client, photo: bytes
) -> None:
    drawing = svg_of(draw_shape(1))
    files = {"photo": photo, "drawing": drawing, "empty": svg_of([]), "damaged": drawing[:-20]}
    answer = drawn.post(f"/v1/collections/{path}", files={"image": files[data]})
    assert answer.status_code == status, answer.text
    assert message in answer.json()["detail"]


def test_a_part_of_a_drawing_cannot_be_searched_with(drawn: httpx.Client) -> None:
    answer = search(drawn, svg_of(draw_shape(1)), region="0,0,0.5,0.5")
    assert answer.status_code == 422 and answer.json()["field"] == "region"
    assert search(drawn, svg_of(draw_shape(1)), find_items="true").json()["regions"] is None


@pytest.mark.parametrize(
    ("request_", "status"),
    [({"json": {}}, 422), ({"files": {"image": ("empty.svg", b"")}}, 422), ({"content": b"svg"}, 415)],
)
def test_a_redrawing_needs_a_file(request_: dict[str, Any], status: int, drawn: httpx.Client) -> None:
    assert drawn.post(f"{SHAPES_URL}/redraw", **request_).status_code == status


def test_a_decoder_alone_searches_but_does_not_redraw(serve: Serve, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = SketchRnnConfig(longest=20, latent_dim=0, decoder_hidden=8, mixtures=2)
    preparation = DrawingPreparation(longest=20, scale=80.0)
    model = SketchRnn(config)
    encoder = SketchEncoder(model, family="sketch-rnn", config=asdict(config), preprocessing=preparation)
    source = write_shapes(tmp_path / "shapes", 6)
    with Home.open(tmp_path / "home", create=True) as home:
        index_source(home, "shapes", source, encoder_ref=str(encoder.save(tmp_path / "alone")), processes=0)
    client = serve(tmp_path / "home")
    data = svg_of(draw_shape(4))
    assert search(client, data).json()["results"][0]["item_id"].endswith("0004.svg")
    answer = client.post(f"{SHAPES_URL}/redraw", files={"image": data})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == "collection"
    assert "is a decoder alone (latent_dim 0), which searches but does not redraw" in answer.json()["detail"]


def test_drawings_are_stored_beside_photos_of_another_collection(
    serve: Serve, drawn_home: Path, tmp_path: Path
) -> None:
    client = serve(Path(shutil.copytree(drawn_home, tmp_path / "home")))
    stored = client.put(f"{SHAPES_URL}/items/mine", files={"image": svg_of(draw_shape(2001))})
    assert stored.status_code == 201, stored.text
    assert search(client, svg_of(draw_shape(2001))).json()["results"][0]["item_id"] == "mine"
    wrong = client.put("/v1/collections/shop/items/wrong", files={"image": svg_of(draw_shape(1))})
    assert wrong.status_code == 422 and "SVG drawing" in wrong.json()["detail"]


def test_an_index_leaves_out_what_is_no_drawing(tmp_path: Path, sketch_encoder_dir: Path, photo: bytes) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.svg").write_bytes(svg_of(draw_shape(1)))
    (folder / "photo.jpg").write_bytes(photo)
    (folder / "text.svg").write_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"><text>words</text></svg>')
    bomb = (
        '<!DOCTYPE svg [<!ENTITY a "'
        + "9 " * 1000
        + '">]><svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0 L&a;"/></svg>'
    )
    (folder / "bomb.svg").write_text(bomb)
    with Home.open(tmp_path / "home", create=True) as home:
        report = index_source(home, "shapes", folder, encoder_ref=str(sketch_encoder_dir), processes=0)
        rejected = {reject.item_id: reject.reason for reject in home.catalogue.rejects.all("shapes")}
    assert (report.added, report.rejected) == (1, 3)
    assert "a photo cannot be compared" in rejected["photo.jpg"]
    assert "nothing to draw" in rejected["text.svg"] and "entit" in rejected["bomb.svg"]


def test_a_picture_of_a_drawing_is_as_large_as_asked_within_its_limit() -> None:
    data = svg_of(draw_shape(1))
    for at_least, side in ((None, 1024), (1, 16), (300, 300), (9000, 1024)):
        decoded = decode_image(data, at_least=at_least)
        assert decoded.pixels.shape == (side, side, 3) and (decoded.width, decoded.height) == (1024, 1024)
        assert decoded.strokes is not None and len(decoded.strokes) == 1
    assert Image.fromarray(decode_image(data).pixels).convert("L").getextrema() == (0, 255)
