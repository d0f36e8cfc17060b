"""`sample`, `complete` and `likelihood` as people run them, on models that the training loop made."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from service.cli import main
from tests.conftest import write_photos
from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.layers.code_prior import PixelPrior, SecondStage
from training.loop import train
from training.models.made import Made, MadeConfig
from training.models.pixel_cnn import PixelCnn, PixelCnnConfig
from training.models.vq_vae import VqVae
from training.preprocessing import Preprocessing
from training.recipes import load_recipe

TINY = ["preprocessing.size=16", "batch_size=16", "epochs=2", "patience=null", "optimiser.warmup_steps=2"]
RASTER = [
    *TINY, "model.likelihood=logistic-mixture", "model.mixtures=2", "model.width=8", "model.kernel=3",
    "model.dilations=[1]", "model.head=8", "objective.condition=category",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_photos(tmp_path_factory.mktemp("density") / "photos", 40)
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def pixel_cnn(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [image for image in read_images(photos)[0] if image.category]
    out = tmp_path_factory.mktemp("models") / "pixel-cnn"
    return train(load_recipe("pixel-cnn", RASTER), images, out, device="cpu", progress=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nitamono", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.mark.slow
def test_a_model_that_draws_pixel_by_pixel_trains_and_is_told_its_labels(pixel_cnn: Path) -> None:
    encoder = load_encoder(pixel_cnn)
    names = encoder.card["labels"]["names"]
    assert encoder.config["classes"] == len(names) >= 2
    assert encoder.card["figures"]["validation"]["elbo"] < 0
    assert "squared_error" not in encoder.card["figures"]["validation"], "it reconstructs nothing"
    assert (pixel_cnn / "pictures" / "samples.png").is_file()
    assert not (pixel_cnn / "pictures" / "reconstructions.png").exists()
    labels = [encoder.sample(3, seed=1, label=number) for number in range(2)]
    assert not torch.equal(*labels)


def test_sample_writes_a_sheet(pixel_cnn: Path, tmp_path: Path, run: Any) -> None:
    name = load_encoder(pixel_cnn).card["labels"]["names"][1]
    status, text, _ = run(
        "sample", "--encoder", pixel_cnn, "--out", tmp_path / "one.png", "--count", 5, "--label", name, "--json"
    )
    assert status == 0
    assert (json.loads(text)["count"], json.loads(text)["file"]) == (5, str(tmp_path / "one.png"))
    with Image.open(tmp_path / "one.png") as sheet:
        assert sheet.size == (5 * 18 + 2, 18 + 2)
    assert run("sample", "--encoder", pixel_cnn, "--out", tmp_path / "two.png", "--count", 5, "--label", "1")[0] == 0
    assert (tmp_path / "two.png").read_bytes() == (tmp_path / "one.png").read_bytes()


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("hog", [], "family 'hog' draws no images"),
        ("vae-clothing-64", ["--label", "0"], "has no labels; leave the label out"),
        ("", ["--label", "99"], "label must be between 0 and"),
        ("", ["--label", "zebra"], "does not know the label 'zebra'; its labels are"),
        ("nowhere", [], "no such encoder directory or name"),
        ("", ["--prior", "PHOTOS"], "family 'pixel-cnn' has no prior N(0, I) of its latents that a flow could replace"),
        ("vae-clothing-64", ["--prior", "PHOTOS", "--label", "0"], "--prior and --label exclude each other"),
    ],
)
def test_sample_says_what_it_cannot_draw(
    encoder: str, options: list[str], message: str, pixel_cnn: Path, photos: Path, tmp_path: Path, run: Any
) -> None:
    options = [str(photos) if option == "PHOTOS" else option for option in options]
    status, out, err = run("sample", "--encoder", encoder or pixel_cnn, "--out", tmp_path / "x.png", *options)
    assert (status, out) == (1, "") and message in err and err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.slow
def test_sample_draws_from_the_latents_of_photos(tmp_path: Path, run: Any) -> None:
    """With a prior of photos, the same seed gives the same sheet, and other photos another."""
    sheets = {}
    for name, start in (("one", 0), ("again", 0), ("other", 100)):
        source = write_photos(tmp_path / f"photos-{start}", 40, start=start)
        out = tmp_path / f"{name}.png"
        status, _, err = run(
            "sample", "--encoder", "vae-clothing-64", "--out", out, "--count", 3, "--prior", source, "--seed", 5
        )
        assert status == 0, err
        sheets[name] = out.read_bytes()
    assert sheets["one"] == sheets["again"] != sheets["other"]


def test_a_prior_needs_photos(tmp_path: Path, run: Any) -> None:
    source = write_photos(tmp_path / "few", 24)
    words = ("sample", "--encoder", "vae-clothing-64", "--out", tmp_path / "x.png", "--prior", source)
    status, out, err = run(*words)
    assert (status, out) == (1, "") and err.endswith("a prior needs at least 25 images, not 24\n")
    assert not (tmp_path / "x.png").exists()


def test_complete_writes_what_it_drew_and_names_what_it_could_not_read(
    pixel_cnn: Path, photos: Path, tmp_path: Path, run: Any
) -> None:
    out = tmp_path / "completed.png"
    status, text, err = run("complete", photos, "--encoder", pixel_cnn, "--out", out, "--variants", 3, "--json")
    assert status == 0 and "broken.jpg" in err
    document = json.loads(text)
    assert len(document["images"]) + len(document["rejected"]) == 8
    with Image.open(out) as sheet:
        assert sheet.size[0] > 5 * 64
    one = next(photos.glob("*/*.jpg"))
    assert run("complete", one, "--encoder", "vae-clothing-64", "--out", out)[0] == 1


def test_likelihood_is_what_the_model_says_of_each_photo(pixel_cnn: Path, photos: Path, run: Any) -> None:
    status, text, err = run("likelihood", photos, "--encoder", pixel_cnn, "--json")
    assert status == 0
    document = json.loads(text)
    assert [where["where"] for where in document["rejected"]] == ["broken.jpg"] and "broken.jpg" in err
    encoder = load_encoder(pixel_cnn)
    dataset = load_dataset(read_images(photos)[0], encoder.preprocessing)
    nats = encoder.log_likelihood(torch.from_numpy(dataset.images)).nats.tolist()
    assert document["exact"] and document["count"] == len(nats) == 40
    assert [row["nats"] for row in document["images"]] == pytest.approx(nats, rel=1e-4)
    assert document["nats"] == pytest.approx(sum(nats) / len(nats), rel=1e-4)
    assert document["bits_per_dim"] == pytest.approx(-document["nats"] / (3 * 16 * 16 * math.log(2)), rel=1e-6)
    assert "exact" in run("likelihood", photos, "--encoder", pixel_cnn)[1]


def test_likelihood_says_that_a_bound_is_one(photos: Path, run: Any) -> None:
    one = next(photos.glob("*/*.jpg"))
    status, text, _ = run("likelihood", one, "--encoder", "vae-clothing-64")
    assert status == 0 and "lower bound" in text
    status, _, err = run("likelihood", one, "--encoder", "hog")
    assert status == 1 and "has no likelihood" in err


VQ = [
    *TINY, "model.widths=[8, 8]", "model.decoder_widths=[8, 8]", "model.codes=8", "model.code_dim=4", "model.pool=2",
    "model.search_dim=8", "model.prior_width=8", "model.prior_layers=1", "prior.epochs=80",
    "prior.patience=null", "prior.optimiser.warmup_steps=2",
]  # fmt: skip


@pytest.mark.slow
def test_a_prior_is_fitted_after_all_else_and_changes_nothing_of_it(photos: Path, tmp_path: Path) -> None:
    images = [image for image in read_images(photos)[0] if image.category]
    told, counted = (
        train(load_recipe("vq-vae", [*VQ, *more]), images, tmp_path / name, device="cpu", progress=False)
        for name, more in (("told", ["objective.condition=category"]), ("counted", ["model.prior=counts"]))
    )
    learnt, plain = load_encoder(told), load_encoder(counted)
    pixels = torch.from_numpy(load_dataset(images, plain.preprocessing).images)
    torch.testing.assert_close(learnt.encode(pixels), plain.encode(pixels), atol=1e-4, rtol=0)
    torch.testing.assert_close(learnt.reconstruct(pixels), plain.reconstruct(pixels), atol=1e-4, rtol=0)
    assert learnt.card["run"]["prior"]["epochs"] == 80 and "prior" not in plain.card["run"]
    codes = learnt.model.codes(pixels.float() / 255.0)
    with torch.no_grad():
        assert float(learnt.model.log_prior(codes).mean()) > float(plain.model.log_prior(codes).mean())
    first, other = (learnt.sample(4, seed=2, label=label) for label in (0, 1))
    assert first.shape == (4, 3, 16, 16) and not torch.equal(first, other)


@pytest.mark.slow
def test_a_run_that_was_killed_while_its_prior_was_fitted_goes_on(photos: Path, tmp_path: Path) -> None:
    """The autoencoder is not trained again, and the prior goes on from its last complete epoch: same end."""
    images = [image for image in read_images(photos)[0] if image.category]
    recipe = load_recipe("vq-vae", VQ)
    whole = load_encoder(train(recipe, images, tmp_path / "whole", device="cpu", progress=False))
    out = tmp_path / "halved"
    stopped = 0

    class Stop(RuntimeError):
        pass

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped += 1
        if stopped == 70:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        learn = SecondStage.loss
        patch.setattr(SecondStage, "loss", lambda self, batch, step: (stop(), learn(self, batch, step))[1])
        with pytest.raises(Stop):
            train(recipe, images, out, device="cpu", progress=False)
    assert not (out / "encoder.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VqVae, "loss", lambda *_: pytest.fail("the autoencoder is trained again"))
        again = load_encoder(train(recipe, images, out, resume=True, device="cpu", progress=False))
    assert again.encoder_id == whole.encoder_id
    assert again.card["run"]["prior"]["resumed_from_epoch"] > 0
    assert again.card["run"]["epochs"] == whole.card["run"]["epochs"] == 2


def test_a_prior_learns_codes_of_photos_as_they_are() -> None:
    """Nothing is hidden from it, and backgrounds are replaced only where their number is its label."""
    robust = ["augment.erase=0.5", "backgrounds.probability=0.9", "objective.clean_target=true"]
    second = load_recipe("vq-vae", robust).for_prior()
    assert (second.augment.erase, second.backgrounds, second.objective.clean_target) == (0.0, None, False)
    told = load_recipe("vq-vae", [*robust, "objective.condition=background"]).for_prior()
    assert told.backgrounds is not None and told.objective.condition == "background"


def test_the_smallest_map_of_codes_has_a_prior_too() -> None:
    torch.manual_seed(0)
    prior = PixelPrior(4, 1, width=4, layers=1)
    codes = prior.sample(50, torch.Generator().manual_seed(0))
    assert codes.shape == (50, 1, 1) and len(codes.unique()) > 1
    every = torch.arange(4).reshape(4, 1, 1)
    assert float(prior.log_prob(every).exp().sum().detach()) == pytest.approx(1.0, abs=1e-5)


def test_a_likelihood_of_binary_images_is_not_asked_for_greys() -> None:
    torch.manual_seed(0)
    model = Made(MadeConfig(size=8, hidden=(20,)))
    encoder = Encoder(model, family="made", config=asdict(model.config), preprocessing=Preprocessing(8, 1))
    assert encoder.log_likelihood(torch.ones(1, 1, 8, 8)).exact
    with pytest.raises(EncoderError, match="give images without greys"):
        encoder.log_likelihood(torch.full((1, 1, 8, 8), 0.5))


def test_many_labels_are_summed_over_only_in_part_and_said_to_be() -> None:
    torch.manual_seed(0)
    config = PixelCnnConfig(size=8, width=4, kernel=3, dilations=(), head=4, pool=2, classes=40, likelihood="bernoulli")
    x = torch.rand(2, 3, 8, 8).round()
    assert not PixelCnn(config).log_likelihood(x).exact
    assert PixelCnn(replace(config, classes=30)).log_likelihood(x).exact


def test_large_counts_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = PixelCnn(PixelCnnConfig(size=8, width=4, kernel=3, dilations=(), head=4, pool=2, likelihood="bernoulli"))
    encoder = Encoder(model, family="pixel-cnn", config=asdict(model.config), preprocessing=Preprocessing(8))
    monkeypatch.setattr("training.encoder.DRAWN_AT_ONCE", 3)
    drawn = encoder.sample(7, seed=1)
    assert drawn.shape == (7, 3, 8, 8) and len(drawn.flatten(1).unique(dim=0)) > 1
    known = torch.zeros(8, 8, dtype=torch.bool)
    known[:4] = True
    assert torch.equal(encoder.complete(drawn, known)[:, :, :4], drawn[:, :, :4])
