"""Pictures of encoders: which families have which, what they show, and the command that writes them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from service.cli import main
from tests.conftest import draw_photo
from tests.training.onnx.graphs import load, vector_graph
from training.encoder import Encoder
from training.gallery import (
    NAMES,
    Row,
    draw_labels,
    draw_neighbours,
    draw_sheet,
    draw_traversals,
    unit_use,
    write_gallery,
)
from training.models import MODELS
from training.preprocessing import Preprocessing
from training.protocols import Batch

pytestmark = pytest.mark.slow

SMALL = {"widths": (8, 16), "decoder_widths": (16, 8)}
CODES = {**SMALL, "codes": 16, "code_dim": 4, "pool": 2}
MIXTURE: dict[str, Any] = {"likelihood": "logistic-mixture", "mixtures": 2}
PIXEL_VAE: dict[str, Any] = {
    **SMALL, **MIXTURE, "latent_dim": 12, "receptive_field": 3, "map_width": 6, "pixel_width": 6,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "ae": {**SMALL, "latent_dim": 12},
    "vae": {**SMALL, "latent_dim": 12},
    "beta-vae": {**SMALL, "latent_dim": 12},
    "cvae": {**SMALL, "latent_dim": 12, "classes": 3},
    "draw": {"steps": 4, "step_dim": 3, "hidden": 24},
    "pca": {"components": 6},
    "vq-vae": CODES,
    "vq-vae-2": {**CODES, "top_width": 8, "prior": "pixel-cnn", "prior_width": 6, "prior_layers": 0},
    "made": {"channels": 3, **MIXTURE, "hidden": (40,)},
    "multiscale": {**MIXTURE, "base": 8, "width": 8, "layers": 0, "blocks": 1},
    "pixel-cnn": {**MIXTURE, "width": 8, "kernel": 3, "dilations": (1,), "head": 8},
    "pixel-cnn++": {**MIXTURE, "width": 8, "scales": 2, "blocks": 1},
    "pixel-rnn": {**MIXTURE, "width": 8, "layers": 1, "kernel": 3, "head": 8},
    "pixel-vae": PIXEL_VAE,
    "infovae": PIXEL_VAE,
    "delta-vae": PIXEL_VAE,
    "vlae": {**PIXEL_VAE, "flow_hidden": (16,)},
    "real-nvp": {"levels": 2, "width": 8, "blocks": 0},
    "glow": {"levels": 2, "width": 8, "steps": 1},
    "pixels": {},
    "hog": {},
    "item-first": {
        "finder": {"size": 16, "widths": (4, 6), "depths": (0, 0), "decoder_widths": (4,), "normalisation": False},
        "encoder": {"family": "pixels", "config": {"size": 8, "channels": 3}},
    },
    "backbone": {"backbone": {"width": 0.25, "depth": 0.5}},
    "onnx": {},
    "fusion": {"parts": [{"family": "pixels", "config": {"size": 8}}, {"family": "hog", "config": {"size": 16}}]},
}
NO_STEPS = {"steps": "does not draw in steps"}
AT_ONCE = {"completions": "does not draw pixel by pixel", **NO_STEPS}
NO_DECODER = {
    **NO_STEPS,
    **dict.fromkeys(("reconstructions", "traversals", "interpolations", "labels"), "has no decoder"),
    "codes": "has no codes",
}
IMAGES = torch.stack([torch.from_numpy(Preprocessing(16).apply(np.asarray(draw_photo(n)))) for n in range(24)])


def trained(family: str) -> Encoder:
    """A few steps of training, and what makes of it the model that ships."""
    torch.manual_seed(0)
    config: Any = MODELS[family].config(size=16, **SETTINGS[family])
    model: Any = MODELS[family].model(config)
    x = IMAGES.float() / 255.0
    batch = Batch(x, x, None, torch.arange(len(x)) % 3 if family == "cvae" else None)
    if family == "pca":
        model.partial_fit(x)
    elif family == "onnx":
        load(model, vector_graph())
    elif family not in ("pixels", "hog", "fusion", "item-first", "backbone"):
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(15):
            optimiser.zero_grad()
            model.loss(batch, step).objective.backward()
            optimiser.step()
        model, config = model.eval().finish([batch])
    return Encoder(model, family=family, config=asdict(config), preprocessing=Preprocessing(16))


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    return {family: trained(family) for family in SETTINGS}


def test_every_family_is_tried() -> None:
    assert set(SETTINGS) == {name for name, family in MODELS.items() if not family.of_drawings}


@pytest.mark.parametrize(
    ("family", "missing"),
    [
        ("vae", {**AT_ONCE, "labels": "has no labels", "codes": "has no codes"}),
        ("ae", {**AT_ONCE, "labels": "has no labels", "codes": "has no codes"}),
        ("beta-vae", {**AT_ONCE, "labels": "has no labels", "codes": "has no codes"}),
        ("cvae", {**AT_ONCE, "codes": "has no codes"}),
        ("draw", {"completions": "does not draw pixel", "labels": "has no labels", "codes": "has no codes"}),
        ("real-nvp", {**AT_ONCE, "labels": "has no labels", "codes": "has no codes"}),
        ("glow", {**AT_ONCE, "labels": "has no labels", "codes": "has no codes"}),
        ("pca", {**AT_ONCE, "labels": "has no labels", "codes": "has no codes"}),
        ("vq-vae", {**AT_ONCE, "labels": "has no labels", "traversals": "are codes", "interpolations": "are codes"}),
        ("vq-vae-2", {**AT_ONCE, "labels": "has no labels", "traversals": "are codes", "interpolations": "are codes"}),
        ("pixels", {**NO_DECODER, **AT_ONCE, "samples": "draws no images"}),
        ("hog", {**NO_DECODER, **AT_ONCE, "samples": "draws no images"}),
        ("onnx", {**NO_DECODER, **AT_ONCE, "samples": "draws no images"}),
        ("fusion", {**NO_DECODER, **AT_ONCE, "samples": "draws no images"}),
        ("made", NO_DECODER),
        ("multiscale", {**NO_DECODER, **AT_ONCE}),
        ("pixel-cnn", NO_DECODER),
        ("pixel-cnn++", NO_DECODER),
        ("pixel-rnn", NO_DECODER),
        *(
            (family, {**AT_ONCE, "labels": "has no labels", "codes": "has no codes"})
            for family in ("pixel-vae", "infovae", "delta-vae", "vlae")
        ),
    ],
)
def test_each_family_has_the_pictures_that_it_can_have(
    family: str, missing: dict[str, str], encoders: dict[str, Encoder], tmp_path: Path
) -> None:
    gallery = write_gallery(encoders[family], IMAGES.numpy(), tmp_path / "new")
    assert list(gallery.written) == [name for name in NAMES if name not in missing]
    assert set(gallery.skipped) == set(missing)
    for name, reason in missing.items():
        assert family in gallery.skipped[name] and reason in gallery.skipped[name]
    names = {"steps.gif" if name == "steps" else f"{name}.png" for name in gallery.written}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    for name, path in gallery.written.items():
        with Image.open(path) as picture:
            assert name == "steps" or picture.mode == "RGB"
            assert min(picture.size) > 64
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 50  # it is no blank sheet


def test_the_same_seed_draws_the_same_files_and_another_one_other_samples(
    encoders: dict[str, Encoder], tmp_path: Path
) -> None:
    first, again, other = (
        write_gallery(encoders["vae"], IMAGES.numpy(), tmp_path / str(place), seed=seed).written
        for place, seed in enumerate((0, 0, 1))
    )
    assert all(first[name].read_bytes() == again[name].read_bytes() for name in first)
    assert first["samples"].read_bytes() != other["samples"].read_bytes()
    assert first["traversals"].read_bytes() == other["traversals"].read_bytes()


def test_a_row_of_labels_is_one_latent_under_each_label(
    encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = []
    monkeypatch.setattr("training.gallery.draw_sheet", lambda found: rows.extend(found) or np.zeros((1, 1, 3)))
    encoder = encoders["cvae"]
    with torch.inference_mode():
        draw_labels(encoder, IMAGES)
        z = encoder.model.latent(IMAGES[1:2].float() / 255.0)
        expected = encoder.model.generate(torch.arange(3), z.expand(3, -1))
    assert len(rows) == 6 and list(rows[0].captions) == ["original", "0", "1", "2"]
    torch.testing.assert_close(rows[1].pictures[0], IMAGES[1].float() / 255.0)
    torch.testing.assert_close(rows[1].pictures[1:], expected)
    assert not torch.equal(expected[0], expected[1])


def test_traversals_show_the_units_with_most_kl(encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoders["vae"]
    x = IMAGES.float() / 255.0
    with torch.no_grad():
        expected = encoder.model.elbo(Batch(x, x)).kl.mean(dim=0)
        use, what = unit_use(encoder, IMAGES, torch.ones(12))
    torch.testing.assert_close(use, expected)
    shown: list[Row] = []
    monkeypatch.setattr("training.gallery.draw_sheet", lambda rows: shown.extend(rows))
    with torch.no_grad():
        draw_traversals(encoder, IMAGES)
    assert [row.label for row in shown[1:]] == [
        f"unit {unit}\n{what} {use[unit]:.2f}" for unit in expected.argsort(descending=True)[:10].tolist()
    ]
    assert all(len(row.pictures) == len(row.captions) == 7 for row in shown[1:])


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neighbours_are_the_most_similar_others_best_first(
    metric: str, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoders["pixels"]
    monkeypatch.setattr(encoder, "metric", metric)
    shown: list[Row] = []
    monkeypatch.setattr("training.gallery.draw_sheet", lambda rows: shown.extend(rows))
    draw_neighbours(encoder, IMAGES)
    vectors = encoder.encode(IMAGES).numpy()
    scores = vectors @ vectors[0]
    if metric == "l2":
        scores = -np.linalg.norm(vectors - vectors[0], axis=1)
    best = np.argsort(-scores[1:], kind="stable")[:8] + 1
    torch.testing.assert_close(shown[0].pictures, IMAGES[[0, *best]].float() / 255.0)
    assert shown[0].captions == ["query", *(f"{scores[place]:.3f}" for place in best)]


def test_a_sheet_has_every_picture_in_its_place_enlarged_in_whole_pixels() -> None:
    pictures = torch.rand(3, 1, 28, 28)
    sheet = draw_sheet([Row("", pictures), Row("", pictures[:1])])
    assert sheet.shape == (4 + 2 * (84 + 4), 4 + 3 * (84 + 4), 3)
    expected = np.repeat(np.repeat((pictures[2, 0] * 255).round().byte().numpy(), 3, axis=0), 3, axis=1)
    np.testing.assert_array_equal(sheet[4:88, 180:264], np.repeat(expected[..., None], 3, axis=2))
    assert (sheet[92:, 92:] == 255).all()


def test_grey_images_and_few_of_them_are_drawn(tmp_path: Path, encoders: dict[str, Encoder]) -> None:
    config: Any = MODELS["vae"].config(size=16, channels=1, **SETTINGS["vae"])
    model = MODELS["vae"].model(replace(config, normalisation="none")).eval()
    encoder = Encoder(model, family="vae", config=asdict(config), preprocessing=Preprocessing(16, 1))
    grey: Tensor = IMAGES[:2, :1]
    assert len(write_gallery(encoder, grey.numpy(), tmp_path).written) == 5
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        write_gallery(encoder, grey[:1].numpy(), tmp_path)


def test_the_command_writes_them_and_says_what_is_left_out(
    encoders: dict[str, Encoder],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = encoders["vae"].save(tmp_path / "encoder")

    def call(*arguments: str) -> tuple[dict[str, Any], str]:
        command = ["nitamono", "pictures", "--encoder", str(encoder), "--json", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert stop.value.code == 0, printed.err
        return json.loads(printed.out), printed.err

    document, notes = call("--data", str(photos), "--out", str(tmp_path / "a"), "--images", "10")
    assert document["images"] == 10
    assert all(Path(path).is_file() for path in document["written"].values())
    assert "no codes: family 'vae' has no codes" in notes
    drawn, _ = call("--out", str(tmp_path / "b"), "--images", "6")
    assert drawn["images"] == 6 and list(drawn["written"]) == list(document["written"])
