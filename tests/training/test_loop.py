"""The training loop: from photos to an encoder directory, through kills, bad files and limits."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import write_photos
from tests.training import runs
from tests.training.runs import TINY, card, run, scalars, tiny
from training.data.sources import SourceImage, read_images
from training.encoder import load_encoder
from training.errors import EncoderError, RecipeError, SourceError
from training.loop import train
from training.protocols import Batch
from training.recipes import load_recipe
from training.stored import round_weights

# Fixtures of the tests below.
images = runs.images
trained = runs.trained


def test_training_gives_an_encoder_that_loads(trained: Path) -> None:
    encoder = load_encoder(trained)
    assert (encoder.family, encoder.dim, encoder.is_generative) == ("vae", 4, True)
    vectors = encoder.encode(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_the_card_says_what_the_encoder_was_made_of_and_what_came_out(trained: Path) -> None:
    found = card(trained)
    data, figures = found["data"], found["figures"]
    assert re.fullmatch("[0-9a-f]{64}", data["fingerprint"])
    assert data["images"] == data["items"] == data["train"] + data["validation"] == 64
    assert found["recipe"] == tiny().model_dump(mode="json")
    assert found["run"]["epochs"] == 3 and found["run"]["stopped_by"] == "epochs"
    assert found["run"]["images_per_second"] > 0
    assert len(figures["kl_per_unit"]) == 4 and 0 <= figures["active_units"] <= 4
    for side in ("train", "validation"):
        dims = 3 * 16 * 16
        assert figures[side]["bits_per_dim"] == pytest.approx(-figures[side]["elbo"] / dims / np.log(2), abs=1e-3)
    assert figures["train"]["kl"] == pytest.approx(sum(figures["kl_per_unit"]), abs=1e-2)
    assert str(trained) not in (trained / "card.json").read_text()


def test_scalars_and_pictures_can_be_looked_at(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(trained / "tensorboard")).Reload()
    assert {"train/elbo", "train/kl", "val/elbo", "val/bits_per_dim"} <= set(board.Tags()["scalars"])
    assert {"reconstructions", "samples"} == set(board.Tags()["images"])
    assert len(board.Scalars("val/elbo")) == 3
    for name in ("samples", "reconstructions"):
        for picture in (f"{name}-0002.png", f"{name}.png"):
            assert np.asarray(Image.open(trained / "pictures" / picture)).std() > 0


def test_the_bound_on_the_card_is_that_of_the_shipped_weights(trained: Path, images: list[SourceImage]) -> None:
    from training.data.dataset import load_dataset
    from training.fitting.figures import final_figures

    encoder = load_encoder(trained)
    dataset = load_dataset(images, encoder.preprocessing)
    sides = [torch.from_numpy(dataset.images[side]).float() / 255.0 for side in dataset.split(0.1)]
    again = final_figures(encoder.model, *(lambda x=x: iter([Batch(x, x)]) for x in sides))
    assert again["validation"]["elbo"] == pytest.approx(card(trained)["figures"]["validation"]["elbo"], rel=1e-2)


def test_a_finished_run_is_left_as_it_is(trained: Path, images: list[SourceImage]) -> None:
    before = (trained / "card.json").read_bytes()
    assert run(tiny(), images, trained, resume=True) == trained
    assert (trained / "card.json").read_bytes() == before


def test_another_run_is_never_overwritten(trained: Path, images: list[SourceImage], encoder_dir: Path) -> None:
    with pytest.raises(RecipeError, match="already holds a training run; continue it with --resume"):
        run(tiny(), images, trained)
    with pytest.raises(RecipeError, match="holds a run with another recipe; give the same recipe"):
        run(tiny("epochs=4"), images, trained, resume=True)
    with pytest.raises(RecipeError, match="holds a run with another data; give the same photos"):
        run(tiny(), images[1:], trained, resume=True)
    with pytest.raises(RecipeError, match="already holds an encoder"):
        run(tiny(), images, encoder_dir, resume=True)


def test_a_run_from_before_a_setting_was_there_is_the_same_run(images: list[SourceImage], tmp_path: Path) -> None:
    out = run(tiny("epochs=1"), images, tmp_path / "vae")
    record = json.loads((out / "run.json").read_text())
    assert record["recipe"].pop("prior") is not None
    (out / "run.json").write_text(json.dumps(record))
    before = (out / "weights.safetensors").read_bytes()
    assert run(tiny("epochs=1"), images, out, resume=True) == out
    assert (out / "weights.safetensors").read_bytes() == before
    record["recipe"]["epochs"] = "many"
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(RecipeError, match="holds a run with another recipe"):
        run(tiny("epochs=1"), images, out, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("ema", ["0.9", "null"])
def test_equal_runs_give_equal_weights_in_deterministic_mode(
    ema: str, images: list[SourceImage], tmp_path: Path
) -> None:
    recipe = tiny("deterministic=true", f"ema={ema}", "epochs=2")
    first, second = (load_encoder(run(recipe, images, tmp_path / name)) for name in ("first", "second"))
    assert first.encoder_id == second.encoder_id
    assert not torch.are_deterministic_algorithms_enabled()
    other_seed = recipe.model_copy(update={"seed": 1})
    other = load_encoder(run(other_seed, images, tmp_path / "other"))
    assert other.encoder_id != first.encoder_id


SCRIPT = """
import sys
from pathlib import Path
import torch
from training.data.sources import read_images
from training.loop import train
from training.recipes import load_recipe
from training.stored import round_weights

if __name__ == "__main__":
    torch.set_num_threads(1)
    photos, out, *settings = sys.argv[1:]
    train(load_recipe("vae", settings), read_images(Path(photos))[0], Path(out), device="cpu")
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_epoch_and_ends_as_if_nothing_had_happened(
    images: list[SourceImage], tmp_path: Path
) -> None:
    settings = [*TINY, "epochs=9", "ema=0.9", "deterministic=true"]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    photos, out = images[0].path.parents[1], tmp_path / "killed"
    process = subprocess.Popen([sys.executable, str(script), str(photos), str(out), *settings], stderr=subprocess.PIPE)
    last, saved = out / "checkpoints" / "last.ckpt", set[int]()
    while len(saved) < 3:  # one after each epoch
        assert process.poll() is None, f"the run ended too early: {process.communicate()[1].decode()[-500:]}"
        if last.exists():
            saved.add(last.stat().st_mtime_ns)
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "encoder.json").exists()
    recipe = load_recipe("vae", settings)
    resumed = load_encoder(run(recipe, images, out, resume=True))
    assert 2 <= resumed.card["run"]["resumed_from_epoch"] < 9
    assert resumed.card["run"]["epochs"] == 9
    untouched = load_encoder(run(recipe, images, tmp_path / "untouched"))
    assert resumed.encoder_id == untouched.encoder_id


def test_it_stops_early_and_ships_the_best_epoch(images: list[SourceImage], tmp_path: Path) -> None:
    recipe = tiny("epochs=60", "patience=2", "ema=null", "optimiser.lr=0.3", "optimiser.warmup_steps=0")
    out = run(recipe, images, tmp_path / "out")
    found = card(out)["run"]
    assert found["stopped_by"] == "patience"
    assert found["epochs"] == found["best_epoch"] + 2 < 60


def test_it_stops_at_its_time(images: list[SourceImage], tmp_path: Path) -> None:
    out = run(tiny("epochs=100000", "max_minutes=0.03"), images, tmp_path / "out")
    found = card(out)["run"]
    assert found["stopped_by"] == "max_minutes"
    assert 0 < found["epochs"] < 100000 and found["fit_seconds"] < 10
    assert load_encoder(out).dim == 4


def test_a_fit_that_diverges_says_so_in_one_line(images: list[SourceImage], tmp_path: Path) -> None:
    recipe = tiny("optimiser.lr=1e30", "optimiser.clip=null", "optimiser.warmup_steps=0")
    with pytest.raises(RecipeError, match=r"recipe vae: training diverged; set optimiser.lr below 1e\+30"):
        run(recipe, images, tmp_path / "out")
    assert not (tmp_path / "out" / "encoder.json").exists()


def test_bad_files_are_skipped_and_reported_on_the_card(tmp_path: Path) -> None:
    images = read_images(write_photos(tmp_path / "photos", 20))[0]
    images[3].path.write_bytes(images[3].path.read_bytes()[:200])
    out = run(tiny("epochs=1"), images, tmp_path / "out")
    data = card(out)["data"]
    assert (data["images"], data["skipped"]) == (19, 1)
    assert data["skipped_images"][0]["where"] == images[3].item_id
    assert data["skipped_images"][0]["reason"]


def test_pca_goes_through_the_same_call(images: list[SourceImage], tmp_path: Path) -> None:
    recipe = load_recipe("pca", ["model.components=5", "preprocessing.size=16", "batch_size=20"])
    out = run(recipe, images, tmp_path / "out")
    encoder = load_encoder(out)
    assert (encoder.family, encoder.dim, encoder.is_generative) == ("pca", 5, True)
    assert card(out)["figures"]["train"]["bits_per_dim"] > 0
    assert (out / "pictures" / "reconstructions.png").exists()
    assert run(recipe, images, out, resume=True) == out


@pytest.mark.parametrize(
    ("family", "override"),
    [("infovae", "model.lambda_=100"), ("delta-vae", "model.committed_rate=5"), ("vlae", "model.flow_hidden=[8]")],
)
def test_families_whose_latent_is_kept_in_use_go_through_it_too(
    family: str, override: str, images: list[SourceImage], tmp_path: Path
) -> None:
    small = ["model.mixtures=2", "model.receptive_field=3", "model.map_width=4", "model.pixel_width=6", "model.head=6"]
    out = run(
        load_recipe(family, [*TINY, *small, override, "epochs=1", "model.latent_dim=8"]), images, tmp_path / "out"
    )
    encoder, figures = load_encoder(out), card(out)["figures"]
    assert encoder.family == family and encoder.dim == 8
    assert len(figures["kl_per_unit"]) == 8 and figures["validation"]["elbo"] < 0.0
    if family == "delta-vae":
        assert figures["validation"]["kl"] >= 5.0 and figures["train"]["kl"] >= 5.0
    if family == "infovae":
        assert len(scalars(out, "val/mmd")) == 1


@pytest.mark.parametrize("family", ["hog", "pixels"])
def test_families_without_weights_go_through_it_too(family: str, images: list[SourceImage], tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(f"family: {family}\ndescription: no weights\npreprocessing: {{size: 16, channels: 1}}\n")
    encoder = load_encoder(run(load_recipe(path), images, tmp_path / "out"))
    assert encoder.family == family and encoder.preprocessing.channels == 1


def test_bfloat16_trains_too(images: list[SourceImage], tmp_path: Path) -> None:
    out = run(tiny("epochs=1"), images, tmp_path / "out", precision="bf16-mixed")
    assert card(out)["run"]["precision"] == "bf16-mixed"
    assert np.isfinite(card(out)["figures"]["validation"]["elbo"])


def test_weights_stored_as_halves_take_half_the_place_and_stay_the_same(
    trained: Path, images: list[SourceImage], tmp_path: Path
) -> None:
    out = run(tiny("weights=float16"), images, tmp_path / "out")
    half, whole = (path / "weights.safetensors" for path in (out, trained))
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    one, other = load_encoder(out), load_encoder(trained)
    for name, tensor in one.model.state_dict().items():
        assert tensor.dtype == other.model.state_dict()[name].dtype
        torch.testing.assert_close(tensor, other.model.state_dict()[name], rtol=1e-3, atol=1e-4)
    copy = load_encoder(one.save(tmp_path / "copy"))
    assert copy.encoder_id == one.encoder_id != other.encoder_id
    x = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(copy.encode(x), one.encode(x))
    torch.testing.assert_close(one.encode(x), other.encode(x), atol=5e-3, rtol=0)


def test_numbers_too_large_for_halves_are_named() -> None:
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(1e6)
    with pytest.raises(EncoderError, match=r"^weight has values too large for torch.float16; set weights=float32"):
        round_weights(model, torch.float16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that the test wants missing")
def test_a_missing_gpu_is_one_line(images: list[SourceImage], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"device 'gpu' cannot be used here \(.*\); choose cpu or auto"):
        train(tiny(), images, tmp_path / "out", device="gpu", progress=False)


def test_unknown_devices_and_precisions_are_one_line(images: list[SourceImage], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="device must be one of auto, cpu, gpu, not 'tpu'"):
        train(tiny(), images, tmp_path / "out", device="tpu")
    with pytest.raises(EncoderError, match="precision must be one of 32, bf16-mixed, not '16'"):
        train(tiny(), images, tmp_path / "out", precision="16")


def test_too_few_images_are_refused(images: list[SourceImage], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="training needs at least 2 items, found 1"):
        run(tiny(), images[:1], tmp_path / "out")
    with pytest.raises(SourceError, match="training needs at least 2 images besides the held-out ones, found 1"):
        run(tiny(), images[:2], tmp_path / "out")
    with pytest.raises(RecipeError, match=r"recipe pca: model.components must be below .* \(\d+\), not 64"):
        run(load_recipe("pca", ["preprocessing.size=16"]), images[:30], tmp_path / "other")
