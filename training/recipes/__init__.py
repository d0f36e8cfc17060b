"""Recipes: everything that decides what training gives, as YAML files checked by pydantic.

`nitamono train RECIPE` takes the name of a recipe in this folder or the path of a file; `--set key=value` changes a
setting.
Imports no torch: listing the recipes is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.errors import RecipeError
from training.preprocessing import Fit, Preprocessing

RECIPES = Path(__file__).parent
FROM_PREPROCESSING = ("size", "channels")  # of a model's config: one place says them


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PreprocessingSettings(_Section):
    """See `training.preprocessing.Preprocessing`."""

    size: int = Field(64, ge=8, le=1024)
    channels: int = Field(3, ge=1, le=3)
    fit: Fit = "stretch"

    def build(self) -> Preprocessing:
        return Preprocessing(self.size, self.channels, self.fit)


class Optimiser(_Section):
    """AdamW; the rate rises over `warmup_steps` and falls along a cosine to `final_lr` of itself."""

    lr: float = Field(1e-3, gt=0)
    final_lr: float = Field(0.01, ge=0, le=1)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(200.0, gt=0, description="largest gradient norm; the loss is a sum over pixels")


class Augment(_Section):
    """Changes made to each training image, newly in every epoch."""

    flip: bool = Field(True, description="mirror half of them")
    crop: float = Field(1.0, ge=0.25, le=1, description="least share of the side that a random crop keeps; 1 is none")


class Recipe(_Section):
    """A model, and how it is trained."""

    name: str
    description: str
    family: str
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    model: dict[str, Any] = {}
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2)
    validation: float = Field(0.1, gt=0, lt=1, description="share of the items held out")
    patience: int | None = Field(None, ge=1, description="epochs without a better validation ELBO before stopping")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the weights' moving average, which is what ships")
    seed: int = Field(0, ge=0, lt=2**32)
    deterministic: bool = Field(False, description="equal weights from equal runs on one machine, at some cost")
    max_minutes: float | None = Field(None, gt=0, description="stop cleanly after so many minutes of fitting")
    pictures_every: int = Field(10, ge=1, description="epochs between reconstructions and samples as pictures")
    optimiser: Optimiser = Optimiser()
    augment: Augment = Augment()

    def model_config_values(self) -> dict[str, Any]:
        """The values that the family's config is built from."""
        return {"size": self.preprocessing.size, "channels": self.preprocessing.channels, **self.model}


def recipe_names() -> dict[str, str]:
    """The recipes that come with the product, by name, with one line on each."""
    described = {path.stem: _read(path).get("description", "") for path in sorted(RECIPES.glob("*.yaml"))}
    return {name: str(text).strip() for name, text in described.items()}


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, change settings by `key=value` (`optimiser.lr=1e-3`), and check all of it.

    Raises:
        RecipeError: there is no such recipe, or a setting is unknown or out of its range; one line says which.
    """
    path = _find(name_or_path)
    values = {"name": path.stem, **_read(path)}
    for override in overrides:
        _apply(values, override)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as exc:
        raise RecipeError(f"recipe {path.stem}: {_explain(exc, Recipe)}") from exc
    return recipe.model_copy(update={"model": _check_model(recipe)})


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return path
    shipped = RECIPES / f"{name_or_path}.yaml"
    if path.name != str(name_or_path) or not shipped.is_file():
        known = ", ".join(recipe_names())
        raise RecipeError(f"recipe {str(name_or_path)!r}: no such recipe; give one of {known}, or a .yaml file")
    return shipped


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise RecipeError(f"recipe {path}: cannot be read ({exc.strerror})") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise RecipeError(f"recipe {path}: not valid YAML ({' '.join(str(exc).split())})") from exc
    if not isinstance(value, dict):
        raise RecipeError(f"recipe {path}: expected settings as 'key: value' lines, found {type(value).__name__}")
    return value


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(f"--set {override!r}: expected key=value, as in optimiser.lr=1e-3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise RecipeError(f"--set {override!r}: {text!r} is not a valid value") from exc
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section) or {}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override!r}: {section!r} has no settings of its own")
        values[section] = inner = dict(inner)
        values = inner
    values[last] = value


def _check_model(recipe: Recipe) -> dict[str, Any]:
    """The model's settings with the types that its config has."""
    from training.models import MODELS  # brings torch, which training needs anyway

    if recipe.family not in MODELS:
        raise RecipeError(f"recipe {recipe.name}: family {recipe.family!r} is not one of {', '.join(sorted(MODELS))}")
    config = MODELS[recipe.family].config
    known = {field.name: field for field in fields(config) if field.name not in FROM_PREPROCESSING}
    for name in recipe.model:
        if name in FROM_PREPROCESSING:
            raise RecipeError(f"recipe {recipe.name}: model.{name} is set by preprocessing.{name}; leave it out")
        if name not in known:
            raise RecipeError(f"recipe {recipe.name}: model.{name} is unknown; settings are {', '.join(known)}")
    try:
        checked = TypeAdapter(config).validate_python(recipe.model_config_values())
    except ValidationError as exc:
        raise RecipeError(f"recipe {recipe.name}: model.{_explain(exc)}") from exc
    return {name: getattr(checked, name) for name in recipe.model}


def _explain(exc: ValidationError, schema: type[BaseModel] | None = None) -> str:
    """The first problem in one line: the setting, what is wrong with it, what it was."""
    error = exc.errors(include_url=False)[0]
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and schema is not None:
        return f"{place} is unknown; settings are {', '.join(_settings(schema, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{place} is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    if not place:
        return message
    return f"{place}: {message[0].lower()}{message[1:]}, not {error['input']!r}"


def _settings(schema: type[BaseModel], sections: tuple[int | str, ...]) -> list[str]:
    for section in sections:
        annotation = schema.model_fields[str(section)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            schema = annotation
    return list(schema.model_fields)
