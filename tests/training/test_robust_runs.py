"""Objectives for background robustness, conditions and masks in the training loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_photos
from tests.training import runs
from tests.training.runs import TINY, card, run, scalars, tiny
from training.data.sources import SourceImage, read_images
from training.data.studio.catalogue import write_catalogue
from training.encoder import load_encoder
from training.errors import RecipeError
from training.fitting.module import Fitting
from training.recipes import load_recipe

# Fixtures of the tests below.
images = runs.images
trained = runs.trained


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> list[SourceImage]:
    """A tiny studio: 24 items, two photos of each, with exact masks and categories."""
    folder = tmp_path_factory.mktemp("shop") / "studio"
    return read_images(write_catalogue(folder, items=24, photos_per_item=2, size=48, processes=0))[0]


ROBUST = {
    "backgrounds": (["backgrounds.count=8"], "val/objective"),
    "clean target": (["backgrounds.count=8", "objective.clean_target=true"], "val/objective"),
    "foreground weight": (["objective.foreground_weight=0"], "val/objective"),
    "foreground": (["model.foreground=true", "objective.foreground=100"], "val/foreground"),
    "consistency": (["backgrounds.count=8", "objective.consistency=100"], "val/consistency"),
    "contrastive": (["objective.contrastive={weight: 1000, temperature: 0.2, projection: 16}"], "val/contrastive"),
    "hard backgrounds": (
        ["backgrounds.count=8", "backgrounds.hard={candidates: 3, share: 0.8}", "objective.consistency=1"],
        "val/objective",
    ),
    "progressive": (["progressive={size: 8, after: 0.5}"], "val/objective"),
    "prototypes": (["objective.prototypes={weight: 1000, count: 8}"], "val/prototypes"),
    "teacher": (["backgrounds.count=8", "objective.teacher={weight: 100, decay: 0.9}"], "val/teacher"),
}


ZERO_AT_FIRST = {"consistency": "objective.consistency=1e-6", "teacher": "objective.teacher={weight: 1e-6, decay: 0.9}"}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ROBUST))
def test_each_objective_lowers_its_own_term(name: str, shop: list[SourceImage], tmp_path: Path) -> None:
    settings, term = ROBUST[name]
    steps = ["epochs=8", "ema=null", "pictures_every=100", "validation=0.3", "optimiser.lr=0.01"]
    out = run(tiny(*steps, *settings), shop, tmp_path / "out")
    values = scalars(out, term)
    if name in ZERO_AT_FIRST:  # while nothing is encoded the views agree: what counts is that asking for it lowers it
        free = run(tiny(*steps, "backgrounds.count=8", ZERO_AT_FIRST[name]), shop, tmp_path / "free")
        assert values[-1] < 0.5 * scalars(free, term)[-1]
    else:
        assert values[-1] < values[0]
    assert load_encoder(out).dim == 4
    if name.startswith("foreground") or "backgrounds.count=8" in settings:
        masks = card(out)["data"]["masks"]
        assert masks["column"] + masks["grabcut"] + masks["border"] + masks["failed"] == 48 and masks["column"] > 40


def test_nothing_of_the_objectives_ships(shop: list[SourceImage], tmp_path: Path) -> None:
    learnt = [
        "objective.contrastive={weight: 10, projection: 16}", "objective.teacher={weight: 1}",
        "objective.prototypes={weight: 1, count: 8}",
    ]  # fmt: skip
    plain, robust = (run(tiny("epochs=1", *more), shop, tmp_path / f"{len(more)}") for more in ([], learnt))
    assert load_encoder(plain).model.state_dict().keys() == load_encoder(robust).model.state_dict().keys()


@pytest.mark.slow
def test_what_selects_an_epoch_is_the_bound_where_nothing_else_is_asked(trained: Path) -> None:
    for objective, bound in zip(scalars(trained, "val/objective"), scalars(trained, "val/elbo"), strict=True):
        assert objective == pytest.approx(-bound, rel=0.01)


WITH_STATE = {
    "robust": ["objective.consistency=10", "objective.contrastive={weight: 10, projection: 8}"],
    "teacher": ["objective.teacher={weight: 10, decay: 0.9}"],
    "prototypes": ["objective.prototypes={weight: 10, count: 8}"],
    "views": [
        "objective.contrastive={weight: 10}", "objective.small_views={count: 1, size: 8}",
        "backgrounds.hard={candidates: 2}", "progressive={size: 8, after: 0.6}",
    ],
    "mined": [
        "objective.contrastive={weight: 10}", "objective.mined={start: 1, every: 2, neighbours: 3, share: 0.9}",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ema", "name"),
    [
        *(("0.9", name) for name in WITH_STATE),
        ("null", "robust"),
        *(pytest.param("null", name, marks=pytest.mark.slow) for name in WITH_STATE if name != "robust"),
    ],
)
def test_a_robust_run_resumed_ends_as_if_nothing_had_happened(
    ema: str, name: str, shop: list[SourceImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(
        "epochs=4", f"ema={ema}", "deterministic=true", "backgrounds.count=8", "objective.clean_target=true",
        "augment.rotate=10", "augment.erase=0.3", *WITH_STATE[name],
    )  # fmt: skip
    untouched = load_encoder(run(recipe, shop, tmp_path / "untouched"))

    starting = Fitting.on_train_epoch_start

    def killed(self: Fitting) -> None:
        starting(self)
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Fitting, "on_train_epoch_start", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(recipe, shop, tmp_path / "killed")
    resumed = load_encoder(run(recipe, shop, tmp_path / "killed", resume=True))
    assert resumed.card["run"]["resumed_from_epoch"] == 2
    assert resumed.encoder_id == untouched.encoder_id
    if name == "mined":
        assert scalars(tmp_path / "untouched", "train/mined")[-1] > 0


def test_objectives_without_any_mask_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    with pytest.raises(RecipeError, match="none of 6 images has a usable one"):
        run(tiny("backgrounds.count=8"), read_images(tmp_path)[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_names_no_folder_of_this_machine(shop: list[SourceImage], tmp_path: Path) -> None:
    write_photos(tmp_path / "walls", 3)
    out = run(tiny("epochs=1", f"backgrounds.folder={tmp_path}/walls", "backgrounds.count=8"), shop, tmp_path / "out")
    assert card(out)["recipe"]["backgrounds"]["folder"] == "walls"
    assert str(tmp_path) not in (out / "card.json").read_text()


def family_file(folder: Path, family: str) -> Path:
    path = folder / f"{family}.yaml"
    path.write_text(f"family: {family}\ndescription: {family}\n")
    return path


SMALL_CVAE = [*TINY, "epochs=1", "backgrounds.count=8"]


def test_a_conditional_family_learns_its_labels_from_the_data(shop: list[SourceImage], tmp_path: Path) -> None:
    path = family_file(tmp_path, "cvae")
    out = run(load_recipe(path, [*SMALL_CVAE, "objective.condition=category"]), shop, tmp_path / "out")
    names = sorted({str(image.category) for image in shop})
    assert card(out)["labels"] == {"condition": "category", "names": names}
    assert json.loads((out / "encoder.json").read_text())["config"]["classes"] == len(names)
    nuisance = run(load_recipe(path, [*SMALL_CVAE, "objective.condition=background"]), shop, tmp_path / "nuisance")
    assert json.loads((nuisance / "encoder.json").read_text())["config"]["classes"] == 17


def test_conditions_that_the_data_cannot_meet_are_refused(shop: list[SourceImage], tmp_path: Path) -> None:
    path = family_file(tmp_path, "cvae")
    with pytest.raises(RecipeError, match="objective.condition is 'season', but 48 of 48 images have no value for it"):
        run(load_recipe(path, [*SMALL_CVAE, "objective.condition=season"]), shop, tmp_path / "out")
    wrong = [*SMALL_CVAE, "objective.condition=item_id", "model.classes=3"]
    with pytest.raises(RecipeError, match="model.classes is 3, the data has 24 values of item_id"):
        run(load_recipe(path, wrong), shop, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ae", "vq-vae"])
def test_families_without_a_posterior_can_be_contrasted(family: str, shop: list[SourceImage], tmp_path: Path) -> None:
    path = family_file(tmp_path, family)
    settings = [
        "preprocessing.size=32", "epochs=2", "batch_size=16", "backgrounds.count=8", "validation=0.3",
        "objective.contrastive={weight: 10, projection: 8}", "objective.clean_target=true",
    ]  # fmt: skip
    out = run(load_recipe(path, settings), shop, tmp_path / "out")
    assert all(np.isfinite(scalars(out, "val/contrastive"))) and len(scalars(out, "val/objective")) == 2
