"""Recipes: what ships is valid, what is wrong is named in one line, and listing them stays quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import RecipeError
from training.models import MODELS
from training.recipes import load_recipe, recipe_names
from training.recipes.section import Section


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.endswith("-full")])
def test_every_shipped_recipe_loads_and_builds_its_model(name: str) -> None:
    recipe = load_recipe(name)
    family = MODELS[recipe.family]
    model = family.model(family.config(**recipe.model_config_values()))
    assert model.dim > 0
    assert recipe.name == name


def test_recipes_are_listed_with_one_line_each() -> None:
    names = recipe_names()
    assert {"vae", "pca"} <= set(names)
    assert all(text and "\n" not in text for text in names.values())


def test_listing_recipes_imports_no_torch() -> None:
    code = "import sys; from training.recipes import recipe_names; recipe_names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_overrides_reach_sections_models_and_preprocessing() -> None:
    recipe = load_recipe(
        "vae",
        ["optimiser.lr=1e-4", "model.latent_dim=32", "preprocessing.size=32", "epochs=3", "model.scale=2e-1",
         "model.widths=[8, 16]", "model.decoder_widths=[16, 8]", "max_minutes=5", "ema=null"],
    )  # fmt: skip
    assert (recipe.optimiser.lr, recipe.epochs, recipe.max_minutes, recipe.ema) == (1e-4, 3, 5.0, None)
    config = MODELS["vae"].config(**recipe.model_config_values())
    assert (config.latent_dim, config.size, config.scale, config.widths) == (32, 32, 0.2, (8, 16))
    assert recipe.optimiser.clip == load_recipe("vae").optimiser.clip


def test_a_file_of_ones_own_is_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("family: pca\ndescription: mine\nmodel: {components: 3}\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.model) == ("mine", {"components": 3})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=fast", "recipe vae: optimiser.lr: input should be a valid number.*, not 'fast'"),
        ("optimiser.lr=-1", "recipe vae: optimiser.lr: input should be greater than 0, not -1"),
        ("optimiser.speed=1", "recipe vae: optimiser.speed is unknown; settings are lr, final_lr"),
        ("epoch=3", "recipe vae: epoch is unknown; settings are name, description, family"),
        ("epochs=0", "recipe vae: epochs: input should be greater than or equal to 1, not 0"),
        ("validation=1.0", "recipe vae: validation: input should be less than 1, not 1.0"),
        ("ema=.nan", "recipe vae: ema: input should be a finite number, not nan"),
        ("preprocessing.fit=squash", "recipe vae: preprocessing.fit: input should be 'stretch', 'pad' or 'crop'"),
        ("family=onnx", "recipe vae: family 'onnx' is not trained; make one with `nitamono encoders import`"),
        ("family=fusion", "family 'fusion' is not trained; make one with `nitamono encoders fuse`"),
        ("family=gan", "recipe vae: family 'gan' is not one of .*hog, .*pca, .*pixels, .*vae"),
        ("model.latents=3", "recipe vae: model.latents is unknown; settings are .*widths"),
        ("model.size=32", "recipe vae: model.size is set by preprocessing.size; leave it out"),
        ("model.latent_dim=many", "recipe vae: model.latent_dim: input should be a valid integer.*, not 'many'"),
        ("model.latent_dim=0", "recipe vae: model.latent_dim must be at least 1, not 0"),
        ("model.likelihood=poisson", "recipe vae: model.likelihood: input should be 'gaussian'.*, not 'poisson'"),
        ("preprocessing.size=40", "recipe vae: model.size must be a multiple of 16 for 4 stages, not 40"),
        ("epochs", "--set 'epochs': expected key=value"),
        ("=3", "--set '=3': expected key=value"),
        ("epochs.x=3", "--set 'epochs.x=3': 'epochs' is not a section of settings"),
        ("epochs=[", r"--set 'epochs=\[': '\[' is not a valid value"),
        ("augment.rotate=200", "recipe vae: augment.rotate: input should be less than or equal to 180, not 200"),
        (
            "masks=[guess]",
            "recipe vae: masks.0: input should be 'column', 'alpha', 'border', 'finder' or 'grabcut', not 'guess'",
        ),
        ("backgrounds.folders=x", "recipe vae: backgrounds.folders is unknown; settings are probability, count"),
        ("backgrounds.kinds.sea=1", "recipe vae: backgrounds.kinds.sea is unknown; settings are flat, gradient"),
        ("objective.contrastive={weight: 1, heat: 1}", "recipe vae: objective.contrastive.heat is unknown; settings"),
        ("objective.teacher={weight: 1, decay: 1}", "recipe vae: objective.teacher.decay: input should be less than 1"),
        (
            "objective.mined={}",
            "recipe vae: objective: mined needs a term over two views; also set contrastive, prototypes",
        ),
        (
            "objective.small_views={}",
            "recipe vae: objective: small_views needs a term that compares them; also set",
        ),
        ("objective={contrastive: {weight: 1}, mined: {start: 150}}", "objective.mined.start must be below epochs"),
        (
            "objective={prototypes: {weight: 1, count: 500}}",
            "objective.prototypes.count must be at most 64, the number of items in a batch",
        ),
        ("progressive={size: 64}", r"progressive.size must be below preprocessing.size \(64\), not 64"),
        (
            "backgrounds.hard={candidates: 1}",
            "recipe vae: backgrounds.hard.candidates: input should be greater than or",
        ),
        ("objective.contrastive={}", "recipe vae: objective.contrastive.weight is missing; add it"),
        (
            "objective.foreground_weight=2",
            "recipe vae: objective.foreground_weight: input should be less than or equal",
        ),
        (
            "objective.condition=category",
            "recipe vae: objective.condition needs a family with classes, which vae does not have",
        ),
        ("optimiser=3", "recipe vae: optimiser: input should be a valid dictionary.*, not 3"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("vae", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("family: [", "not valid YAML"),
        ("- vae", "expected settings as 'key: value' lines, found list"),
        ("", "expected settings as 'key: value' lines, found NoneType"),
        ("family: vae", "description is missing; add it"),
        ("description: x", "family is missing; add it"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert "bad" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gan", "../recipes/vae", "/nowhere/vae", "missing.yaml", ""])
def test_a_recipe_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(RecipeError, match="recipe"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("pca", ["backgrounds={}"], "recipe pca: backgrounds needs a family that is trained by gradient"),
        ("pca", ["objective.clean_target=true"], "objective.clean_target needs a family that is trained by gradient"),
        ("vae", ["objective.clean_target=true", "masks=[]"], "objective.clean_target needs masks of the items"),
        ("vae", ["objective.foreground_weight=0.5", "masks=[]"], "objective.foreground_weight needs masks"),
        ("pca", ["objective.prototypes.weight=1"], "objective.prototypes needs a family that is trained by gradient"),
        (
            "vae",
            ["objective.contrastive.weight=1", "objective.small_views={least: 0.7, most: 0.5}"],
            r"objective.small_views: least must be at most most \(0.5\), not 0.7",
        ),
        (
            "vae",
            ["objective.contrastive.weight=1", "objective.small_views.size=24"],
            "objective.small_views.size must be a multiple of 16, not 24",
        ),
        (
            "vae",
            ["backgrounds.kinds={flat: 0, gradient: 0, texture: 0, photos: 0, studio: 0}"],
            "backgrounds.kinds needs a kind with a weight above 0",
        ),
    ],
)
def test_settings_that_cannot_work_together_are_one_line(recipe: str, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(recipe, overrides)
    assert "\n" not in str(caught.value)


def test_masks_are_needed_by_what_uses_them_alone() -> None:
    assert not load_recipe("vae").needs_masks
    assert not load_recipe("vae", ["objective.consistency=1"]).needs_masks
    for override in ("backgrounds={}", "objective.clean_target=true", "objective.foreground_weight=0.5"):
        assert load_recipe("vae", [override]).needs_masks
    assert load_recipe("vae", ["objective.foreground=1", "model.foreground=true"]).needs_masks


def test_every_setting_is_in_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs/reference.md").read_text(encoding="utf-8")
    section = text.split("## Settings of a recipe", 1)[1].split("\n## ", 1)[0]
    sections = Section.__subclasses__()
    assert {"Recipe", "Augment", "Objective", "DrawingSettings"} <= {part.__name__ for part in sections}
    missing = [name for part in sections for name in part.model_fields if f"`{name}`" not in section]
    assert missing == []


@pytest.mark.parametrize(
    ("family", "override", "message"),
    [
        (
            "ae",
            "objective.consistency=1",
            "objective.consistency needs a family with a posterior, which ae does not have",
        ),
        (
            "ae",
            "objective.teacher.weight=1",
            "objective.teacher needs a family with a posterior, which ae does not have",
        ),
        ("vae", "objective.foreground=1", "objective.foreground needs a model that predicts it; set model.foreground"),
        ("vq-vae", "progressive.size=32", "recipe mine: progressive.size needs an encoder that accepts other sizes"),
        ("cvae", "epochs=1", "objective.condition is required by family cvae; set it to category or an attribute"),
        ("cvae", "objective.condition=background", "is background, which needs the section backgrounds"),
        (
            "vae",
            "objective.condition=category",
            "objective.condition needs a family with classes, which vae does not have",
        ),
        ("pixel-cnn", "model.classes=3", "model.classes needs labels; set objective.condition"),
        ("vq-vae", "objective.condition=category", "classes must be null for a prior of counts"),
    ],
)
def test_families_are_asked_only_for_what_they_can(family: str, override: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"family: {family}\ndescription: mine\n")
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [override])


def test_pictures_of_a_progressive_run_fit_the_network() -> None:
    with pytest.raises(RecipeError, match="recipe vae: progressive.size must be a multiple of 16, not 40"):
        load_recipe("vae", ["patience=null", "progressive={size: 40}"])


@pytest.mark.parametrize("cut", ["max_minutes=1", "patience=3", "epochs=1"])
def test_a_progressive_run_that_could_end_small_is_refused(cut: str) -> None:
    changes = ["patience=null", "progressive={size: 32}", cut]
    with pytest.raises(RecipeError, match="with progressive"):
        load_recipe("vae", changes)


def test_a_prior_is_fitted_on_backgrounds_that_nobody_chose() -> None:
    recipe = load_recipe("vq-vae", ["objective.condition=background", "backgrounds={hard: {candidates: 4}}"])
    backgrounds = recipe.for_prior().backgrounds
    assert backgrounds is not None and backgrounds.hard is None
