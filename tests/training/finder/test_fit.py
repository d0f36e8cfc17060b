"""Training a finder: the objective, and a short run that finds simple objects."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.errors import EncoderError
from training.finder.fit import FinderFit, TrustedPhotos, fit_finder, objective, overlap
from training.finder.network import Finder, FinderConfig, FinderOutput
from training.finder.scenes import SceneMaker
from training.finder.store import load_finder, save_finder

from .test_scenes import blue_backgrounds, red_squares

TINY = FinderConfig(size=32, widths=(8, 12, 16), depths=(0, 0, 1), decoder_widths=(8, 12))


def test_overlap_is_intersection_over_union():
    logits = torch.full((3, 1, 4, 4), -5.0)
    cells = torch.zeros(3, 1, 4, 4)
    logits[0, 0, :2], cells[0, 0, 1:3] = 5.0, 1.0  # 4 of 12 cells
    logits[1, 0, :2] = 5.0  # nothing of it is there
    torch.testing.assert_close(overlap(logits, cells), torch.tensor([1 / 3, 0.0, 1.0]))


def test_the_objective_falls_to_near_nothing_for_a_perfect_mask_and_ignores_what_is_not_trusted():
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:12, 4:12] = 1.0
    cells = torch.nn.functional.adaptive_avg_pool2d(mask, 8)
    perfect = FinderOutput(40.0 * (cells - 0.5), torch.full((2,), 8.0))
    trust = torch.ones_like(mask)
    assert float(objective(perfect, mask, trust)) < 0.02
    wrong = perfect.mask.clone()
    wrong[:, :, 0, 0] = 20.0
    trust[:, :, :2, :2] = 0.0
    torch.testing.assert_close(
        objective(FinderOutput(wrong, perfect.quality), mask, trust), objective(perfect, mask, trust), atol=1e-6, rtol=0
    )
    assert float(objective(FinderOutput(wrong, perfect.quality), mask, torch.ones_like(mask))) > 0.1


@pytest.mark.slow
def test_a_short_fit_finds_red_things_and_its_quality_tells_good_masks_from_bad(tmp_path: Path):
    maker = SceneMaker(red_squares(), blue_backgrounds(), 32)
    steps = []
    settings = FinderFit(steps=150, batch_size=16, lr=4e-3)
    network, run = fit_finder(TINY, settings, maker, report=lambda step, loss: steps.append(loss))
    assert run["steps"] == 150 == len(steps) and np.mean(steps[-10:]) < 0.6 * np.mean(steps[:10])
    torch.manual_seed(9)
    made = maker(64)
    directory = save_finder(network, tmp_path / "finder", {"name": "tiny"})
    loaded = load_finder(directory)
    with torch.inference_mode():
        found = loaded(made.images)
        reach = overlap(found.mask, torch.nn.functional.adaptive_avg_pool2d(made.masks, 16))
    assert float(reach.median()) > 0.5

    import onnxruntime

    session = onnxruntime.InferenceSession(str(directory / "finder.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        pixels = torch.round(made.images[:count] * 255.0).to(torch.uint8)
        mask, quality = session.run(["mask", "quality"], {"pixels": pixels.numpy()})
        np.testing.assert_allclose(mask, torch.sigmoid(found.mask[:count]).numpy(), atol=1e-4)
        np.testing.assert_allclose(quality, torch.sigmoid(found.quality[:count]).numpy(), atol=1e-4)


def test_photos_take_their_share_of_the_batches_and_must_have_the_scenes_size():
    maker = SceneMaker(red_squares(), blue_backgrounds(), 32)
    photos = TrustedPhotos(*(np.full((3, *shape, 32, 32), 255, np.uint8) for shape in ((3,), (), ())))
    _, run = fit_finder(TINY, FinderFit(steps=2, batch_size=4, precision="bf16-mixed"), maker, photos)
    assert run["pictures"] == 8
    large = TrustedPhotos(*(np.full((3, *shape, 64, 64), 255, np.uint8) for shape in ((3,), (), ())))
    with pytest.raises(ValueError, match="photos have a side of 64 pixels, but scenes one of 32"):
        fit_finder(TINY, FinderFit(steps=1, batch_size=4), maker, large)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"precision": "16"}, "precision must be one of 32"),
        ({"photo_share": 1.0}, "photo_share"),
        ({"ema": 1.0}, "ema"),
    ],
)
def test_settings_out_of_range_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        FinderFit(**settings)


@pytest.mark.slow
def test_a_damaged_finder_is_refused_with_its_name(tmp_path: Path):
    directory = save_finder(Finder(TINY), tmp_path / "finder", {})
    (directory / "weights.safetensors").write_bytes(b"broken")
    with pytest.raises(EncoderError, match="finder: not a usable finder"):
        load_finder(directory)
    with pytest.raises(EncoderError, match="cannot be read"):
        load_finder(tmp_path / "absent")
