"""Training on drawings and the commands of `nitamono sketch`, as people run them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.cli import main
from tests.drawings import make_drawings, make_strokes, write_ndjson
from training.encoder import load_encoder
from training.errors import EncoderError, RecipeError
from training.loop import train
from training.recipes import load_recipe
from training.sketches.dataset import prepare_drawings
from training.sketches.encoder import load_sketch_encoder
from training.sketches.judging import interval, lengths, precision_at, queries
from training.sketches.sheets import drawing_svg
from training.sketches.svg import read_svg

TINY = [
    "drawings.longest=24", "model.latent_dim=8", "model.encoder_hidden=24", "model.decoder_hidden=48",
    "model.mixtures=4", "model.decay=0.98", "batch_size=32", "epochs=12", "validation=0.1", "pictures_every=6",
    "optimiser.lr=1e-2", "optimiser.warmup_steps=5", "ema=null", "model.kl_weight=0.1",
]  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_ndjson(tmp_path_factory.mktemp("drawings") / "train.ndjson", make_drawings(240))
    path.write_text(path.read_text() + "no json\n" + json.dumps({"drawing": [[[0, 1], [0, 1]]] * 30}) + "\n")
    return path


@pytest.fixture(scope="module")
def test_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ndjson(tmp_path_factory.mktemp("drawings") / "test.ndjson", make_drawings(60, seed=1))


def command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["nitamono", *map(str, arguments)])
        main()
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def trained(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sketches"
    overrides = [word for setting in TINY for word in ("--set", setting)]
    assert command("train", "sketch-rnn", "--data", source, "--out", out, "--device", "cpu", *overrides) == 0
    return out


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = command(*arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.slow
def test_the_card_says_what_the_encoder_was_made_of(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_text())
    assert card["trained_from"] == "label-free: 240 drawings"
    data = card["data"]
    assert data["drawings"] == data["train"] + data["validation"] == 240
    assert data["skipped"] == 2
    reasons = [each["reason"] for each in data["skipped_drawings"]]
    assert "not a drawing" in reasons[0] and "has 30 strokes, which take at least 60 points" in reasons[1]
    assert data["points"]["p05"] >= 4
    figures = card["figures"]
    assert figures["validation"]["elbo"] > -60 and figures["train"]["kl"] > 0
    assert len(figures["kl_per_unit"]) == 8
    description = json.loads((trained / "encoder.json").read_text())
    assert description["preprocessing"]["longest"] == description["config"]["longest"] == 24
    for name in ("samples", "reconstructions"):
        for picture in (f"{name}-0006.png", f"{name}.png"):
            assert np.asarray(Image.open(trained / "pictures" / picture)).std() > 0
    assert not (trained / "encoder.onnx").exists()


@pytest.mark.slow
def test_offsets_of_the_training_side_have_a_deviation_of_one(trained: Path, source: Path) -> None:
    from training.data.dataset import split_items
    from training.sketches.reading import read_drawings

    encoder = load_sketch_encoder(trained)
    dataset = prepare_drawings(read_drawings(source)[0], encoder.preprocessing)
    rows = dataset.rows[split_items(dataset.item_ids, 0.1)[0]]
    assert float(rows[rows[..., 4] == 0][:, :2].std()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
def test_a_finished_run_is_left_and_another_source_is_refused(trained: Path, source: Path, run: Call) -> None:
    before = (trained / "card.json").read_bytes()
    overrides = [word for setting in TINY for word in ("--set", setting)]
    words = ("train", "sketch-rnn", "--out", trained, "--device", "cpu", *overrides)
    assert run(*words, "--data", source)[0] == 1
    assert run(*words, "--data", source, "--resume")[0] == 0
    assert (trained / "card.json").read_bytes() == before
    other = write_ndjson(source.with_name("other.ndjson"), make_drawings(30))
    code, _, err = run(*words, "--data", other, "--resume")
    assert code == 1 and "holds a run with another data" in err


@pytest.mark.slow
def test_drawings_of_the_same_kind_are_neighbours(trained: Path) -> None:
    encoder = load_sketch_encoder(trained)
    found = make_drawings(60, seed=1)
    kinds = [str(each.category) for each in found]
    precision = precision_at(encoder.embed([each.strokes for each in found]), kinds, 10).mean()
    assert precision > 0.8


@pytest.mark.slow
def test_the_sheets_of_the_commands(trained: Path, test_source: Path, run: Call, tmp_path: Path) -> None:
    words = {
        "sample": ("--count", 3, "--temperature", 0.2, "--temperature", 1),
        "reconstruct": (test_source, "--drawings", 12),
        "interpolate": (test_source, "--pairs", 2, "--steps", 5),
        "complete": (test_source, "--drawings", 2, "--variants", 3),
    }
    for name, arguments in words.items():
        out = tmp_path / f"{name}.svg"
        code, text, err = run("sketch", name, *arguments, "--encoder", trained, "--out", out, "--json")
        assert code == 0, err
        assert json.loads(text)["file"] == str(out) and len(read_svg(out.read_bytes())) > 3
        again = tmp_path / f"{name}-again.svg"
        run("sketch", name, *arguments, "--encoder", trained, "--out", again)
        assert again.read_bytes() == out.read_bytes()
    svgs = []
    for kind in ("circle", "square", "cross"):
        svgs.append(tmp_path / f"{kind}.svg")
        svgs[-1].write_text(drawing_svg(make_strokes(kind, 7)))
    code, _, err = run("sketch", "arithmetic", *svgs, "--encoder", trained, "--out", tmp_path / "sum.png")
    assert code == 0, err
    assert np.asarray(Image.open(tmp_path / "sum.png").convert("L")).min() < 100


@pytest.mark.slow
def test_evaluate_reports_retrieval_beside_pixels_and_lengths(trained: Path, test_source: Path, run: Call) -> None:
    words = ("sketch", "evaluate", test_source, "--encoder", trained, "--samples", 50)
    code, text, err = run(*words, "--json")
    assert code == 0, err
    report = json.loads(text)
    assert report["drawings"] == 60 and report["nats"] > -60
    for name in ("encoder", "pixels"):
        found = report["retrieval"][name]
        assert 0.3 < found["low"] <= found["precision"] <= found["high"] <= 1.0
    assert report["retrieval"]["chance"] == pytest.approx(19 / 59)
    assert report["lengths"]["data"]["ended"] == 1.0
    code, text, _ = run(*words)
    assert code == 0 and "precision@10 encoder: " in text and "60 drawings" in text
    assert f"in another order: {report['same_ink']['order']:.1%}, direction: " in text


@pytest.mark.slow
def test_what_the_commands_cannot_do_is_one_line(trained: Path, test_source: Path, run: Call, tmp_path: Path) -> None:
    out = tmp_path / "x.svg"
    (tmp_path / "empty.svg").write_text("<svg/>")
    single = write_ndjson(tmp_path / "one.ndjson", make_drawings(1))
    cases: list[tuple[tuple[object, ...], str]] = [
        (("sketch", "sample", "--encoder", "hog", "--out", out), "family 'hog' encodes images; give an encoder of"),
        (("sample", "--encoder", trained, "--out", tmp_path / "x.png"), "encodes drawings, not images; use it with"),
        (("compare", "--studio", "solids", "--encoder", trained), "encodes drawings, not images"),
        (("sketch", "sample", "--encoder", trained, "--out", tmp_path / "x.gif"), "expected a file named *.svg or"),
        (("sketch", "reconstruct", tmp_path / "empty.svg", "--encoder", trained, "--out", out), "has no drawing that"),
        (("sketch", "interpolate", single, "--encoder", trained, "--out", out), "needs at least 2 drawings, found 1"),
        (("train", "sketch-rnn", "--data", tmp_path / "no.npz", "--out", tmp_path / "n"), "no such file or folder"),
    ]
    for words, message in cases:
        code, _, err = run(*words)
        assert code == 1 and message in err and "Traceback" not in err, (words, err)


@pytest.mark.slow
def test_an_encoder_of_drawings_is_shown_and_timed_beside_one_of_images(trained: Path, run: Call) -> None:
    code, out, err = run("encoders", "show", trained)
    assert code == 0 and "longest" in out, err
    code, out, err = run("encoders", "compare", trained, "hog", "--json")
    assert code == 0 and "images_per_second" in out, err


@pytest.mark.slow
def test_an_encoder_of_drawings_and_one_of_images_are_not_mistaken(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="encodes drawings, not images"):
        load_encoder(trained)
    with pytest.raises(EncoderError, match="encodes images; give an encoder of drawings"):
        load_sketch_encoder("hog")
    with pytest.raises(RecipeError, match="takes drawings, and these are images"):
        train(load_recipe("sketch-rnn", TINY), [], tmp_path / "run", device="cpu")


def test_the_decoder_alone_completes_but_has_no_latent(source: Path, run: Call, tmp_path: Path) -> None:
    out = tmp_path / "alone"
    overrides = [word for setting in [*TINY, "model.latent_dim=0", "epochs=2"] for word in ("--set", setting)]
    code, _, err = run("train", "sketch-rnn", "--data", source, "--out", out, "--device", "cpu", *overrides)
    assert code == 0, err
    words = ("--encoder", out, "--out", tmp_path / "x.svg")
    assert run("sketch", "complete", source, *words)[0] == run("sketch", "sample", *words)[0] == 0
    code, _, err = run("sketch", "reconstruct", source, *words)
    assert code == 1 and "is a decoder alone (latent_dim 0): drawings have no latent" in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preprocessing.size=32", "preprocessing is for images, and family sketch-rnn takes drawings; leave it out"),
        ("augment.flip=false", "augment is for images"),
        ("objective.clean_target=true", "objective.clean_target is for images"),
        ("objective.contrastive={weight: 1, shape_share: 0.5}", "objective.contrastive.shape_share is for images"),
        ("model.longest=9", "model.longest is set by drawings.longest; leave it out"),
        ("model.size=9", "model.size is unknown"),
        ("drawings=null", "drawings is required by family sketch-rnn"),
        ("drawings.epsilon=-1", "drawings.epsilon: "),
    ],
)
def test_settings_that_are_not_of_drawings_are_one_line(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        load_recipe("sketch-rnn", [override])


def test_drawings_in_a_recipe_of_images_are_refused() -> None:
    with pytest.raises(RecipeError, match="drawings needs a family of drawings, such as sketch-rnn, not vae"):
        load_recipe("vae", ["drawings.longest=50"])


def test_a_contrastive_term_and_neighbours_can_be_added(source: Path, run: Call, tmp_path: Path) -> None:
    settings = [
        *TINY, "epochs=2", "objective={contrastive: {weight: 1}, mined: {start: 1, every: 1}}",
        "drawings={longest: 24, rotate: 10, shear: 10, warp: 0.05, order: 0.5, reverse: 0.5}",
    ]  # fmt: skip
    overrides = [word for setting in settings for word in ("--set", setting)]
    words = ("train", "sketch-rnn", "--data", source, "--out", tmp_path / "run", "--device", "cpu", *overrides)
    code, _, err = run(*words)
    assert code == 0, err


def test_precision_by_hand() -> None:
    angles = np.radians([0.0, 10.0, 20.0, 90.0, 100.0])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    names = ["a", "a", "b", "b", "c"]
    assert queries(names).tolist() == [True, True, True, True, False]
    assert precision_at(vectors, names, 2).tolist() == [0.5, 0.5, 0.0, 0.5]


def test_an_interval_is_over_groups() -> None:
    values = np.array([1.0, 1.0, 0.0, 0.0])
    alike = interval(values, np.array(["a", "a", "b", "b"]))
    assert alike.precision == 0.5 and (alike.low, alike.high) == (0.0, 1.0)
    one = interval(values, np.array(["a"] * 4))
    assert (one.low, one.high) == (0.5, 0.5)


def test_lengths_by_hand() -> None:
    found = lengths(np.array([2, 4, 6]), np.array([True, True, False]))
    assert (found.mean, found.median) == (4.0, 4.0) and found.ended == pytest.approx(2 / 3)
