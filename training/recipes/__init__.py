"""Recipes: all settings of a training run, as YAML files validated by pydantic.

`nitamono train RECIPE` takes the name of a recipe in this folder or the path of a file; `--set key=value` overrides a
setting. Imports no torch, so that listing the recipes is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from training.errors import EncoderError, RecipeError
from training.recipes.schema import Recipe

__all__ = ["Recipe", "check_device_and_precision", "load_recipe", "recipe_names"]

RECIPES = Path(__file__).parent
DEVICES = ("auto", "cpu", "gpu")
PRECISIONS = ("32", "bf16-mixed")
FROM_SECTIONS = {"size": "preprocessing", "channels": "preprocessing", "longest": "drawings"}  # fields of configs
OF_IMAGES = ("preprocessing", "augment", "masks", "backgrounds", "item_first", "progressive", "backbone_weights")
OF_BOTH = ("contrastive", "prototypes", "mined")  # objectives over two views of images or of drawings
MADE_BY = {"onnx": "nitamono encoders import", "fusion": "nitamono encoders fuse"}
FROM_LABELS = "classes"  # field of a conditional model's config: the number of labels in the data


def check_device_and_precision(device: str, precision: str) -> None:
    """`EncoderError` for an unknown device or precision; whether the device is available is checked later."""
    for name, value, known in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise EncoderError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def recipe_names() -> dict[str, str]:
    """Descriptions of the shipped recipes by name."""
    described = {path.stem: _read(path).get("description", "") for path in sorted(RECIPES.glob("*.yaml"))}
    return {name: str(text).strip() for name, text in described.items()}


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply overrides `key=value` (`optimiser.lr=1e-3`), and validate it.

    Raises:
        RecipeError: the recipe does not exist, or a setting is unknown or invalid; the message names it in one line.
    """
    path = _find(name_or_path)
    values = {"name": path.stem, **_read(path)}
    for override in overrides:
        _apply(values, override)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as exc:
        raise RecipeError(f"recipe {path.stem}: {_explain(exc, Recipe)}") from exc
    recipe = recipe.model_copy(update={"model": _check_model(recipe)})
    _check_objective(recipe)
    _check_condition(recipe)
    _check_sources(recipe)
    _check_sides(recipe)
    return recipe


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
            raise RecipeError(f"--set {override!r}: {section!r} is not a section of settings")
        values[section] = inner = dict(inner)
        values = inner
    values[last] = value


def _check_model(recipe: Recipe) -> dict[str, Any]:
    """The model settings, converted to the types of the config."""
    from training.models import MODELS  # imports torch, which training needs anyway

    if recipe.family not in MODELS:
        raise RecipeError(f"recipe {recipe.name}: family {recipe.family!r} is not one of {', '.join(sorted(MODELS))}")
    if recipe.family in MADE_BY:
        raise RecipeError(
            f"recipe {recipe.name}: family {recipe.family!r} is not trained; make one with `{MADE_BY[recipe.family]}`"
        )
    _check_input(recipe, of_drawings=MODELS[recipe.family].of_drawings)
    config = MODELS[recipe.family].config
    known = {field.name: field for field in fields(config) if field.name not in FROM_SECTIONS}
    values = recipe.model_config_values()
    if FROM_LABELS in known and recipe.objective.condition is not None:
        values.setdefault(FROM_LABELS, 2)  # a placeholder: the number comes from the data
    for name in recipe.model:
        if name in FROM_SECTIONS and name in {field.name for field in fields(config)}:
            section = FROM_SECTIONS[name]
            raise RecipeError(f"recipe {recipe.name}: model.{name} is set by {section}.{name}; leave it out")
        if name not in known:
            raise RecipeError(f"recipe {recipe.name}: model.{name} is unknown; settings are {', '.join(known)}")
    try:
        checked = TypeAdapter(config).validate_python(values)
    except ValidationError as exc:
        raise RecipeError(f"recipe {recipe.name}: model.{_explain(exc)}") from exc
    return {name: getattr(checked, name) for name in recipe.model}


def _check_input(recipe: Recipe, *, of_drawings: bool) -> None:
    """Refuse settings of images for a family of drawings, and the reverse."""
    if not of_drawings:
        if recipe.drawings is not None:
            raise _refusal(recipe, "drawings", f"needs a family of drawings, such as sketch-rnn, not {recipe.family}")
        return
    if recipe.drawings is None:
        raise _refusal(recipe, "drawings", f"is required by family {recipe.family}; add the section, {{}} for defaults")
    of_objective = recipe.objective.model_dump(exclude_defaults=True)
    others = [
        *(name for name in OF_IMAGES if name in recipe.model_fields_set),
        *(f"objective.{name}" for name in of_objective if name not in OF_BOTH),
    ]
    if others:
        raise _refusal(recipe, others[0], f"is for images, and family {recipe.family} takes drawings; leave it out")
    if recipe.objective.shape_share > 0:
        raise _refusal(recipe, "objective.contrastive.shape_share", "is for images; leave it out")


def _check_objective(recipe: Recipe) -> None:
    """Refuse objectives that the family does not support."""
    from training.models import MODELS
    from training.protocols import GradientModel, VariationalModel

    model, objective = MODELS[recipe.family].model, recipe.objective
    requested = {
        "backgrounds": recipe.backgrounds is not None,
        "objective.clean_target": objective.clean_target,
        "objective.foreground_weight": objective.foreground_weight < 1,
        "objective.foreground": objective.foreground > 0,
        "objective.consistency": objective.consistency > 0,
        "objective.contrastive": objective.contrastive is not None,
        "objective.teacher": objective.teacher is not None,
        "objective.prototypes": objective.prototypes is not None,
        "objective.condition": objective.condition is not None,
    }
    setting = next((name for name, is_set in requested.items() if is_set), None)
    if setting is not None and not issubclass(model, GradientModel):
        raise _refusal(recipe, setting, f"needs a family that is trained by gradient, which {recipe.family} is not")
    if recipe.needs_masks and not recipe.masks:
        raise _refusal(recipe, str(setting), "needs masks of the items; set their sources in masks")
    for name in ("objective.consistency", "objective.teacher"):
        if requested[name] and not issubclass(model, VariationalModel):
            raise _refusal(recipe, name, f"needs a family with a posterior, which {recipe.family} does not have")
    if objective.foreground > 0 and not recipe.model.get("foreground"):
        raise _refusal(recipe, "objective.foreground", "needs a model that predicts it; set model.foreground to true")


def _check_condition(recipe: Recipe) -> None:
    """Refuse a condition without a conditional family, and the reverse."""
    from training.models import MODELS

    condition = recipe.objective.condition
    of_labels = [field for field in fields(MODELS[recipe.family].config) if field.name == FROM_LABELS]
    needs_labels = any(field.default is not None for field in of_labels)
    if condition is not None and not of_labels:
        raise _refusal(
            recipe, "objective.condition", f"needs a family with classes, which {recipe.family} does not have"
        )
    if condition is None and needs_labels:
        needed = f"is required by family {recipe.family}; set it to category or an attribute"
        raise _refusal(recipe, "objective.condition", needed)
    if condition is None and of_labels and recipe.model.get(FROM_LABELS) is not None:
        raise _refusal(recipe, "model.classes", "needs labels; set objective.condition")
    if condition == "background" and recipe.backgrounds is None:
        raise _refusal(recipe, "objective.condition", "is background, which needs the section backgrounds")


def _check_sources(recipe: Recipe) -> None:
    """Refuse backbone weights without a backbone, and backgrounds without any kind."""
    if recipe.backbone_weights is not None and recipe.family != "backbone" and not recipe.model.get("backbone"):
        raise _refusal(recipe, "backbone_weights", "needs a model with a backbone; set model.backbone.network")
    if recipe.backgrounds is not None and not any(
        weight for kind, weight in recipe.backgrounds.kinds if kind != "folder" or recipe.backgrounds.folder
    ):
        raise _refusal(recipe, "backgrounds.kinds", "needs a kind with a weight above 0")


def _refusal(recipe: Recipe, setting: str, reason: str) -> RecipeError:
    return RecipeError(f"recipe {recipe.name}: {setting} {reason}")


def _check_sides(recipe: Recipe) -> None:
    """Refuse image sizes that the encoder does not accept."""
    from training.layers.networks import NetworkConfig
    from training.models import MODELS

    small = recipe.objective.small_views
    requested = {
        "objective.small_views.size": None if small is None else small.size,
        "progressive.size": None if recipe.progressive is None else recipe.progressive.size,
    }
    config: Any = MODELS[recipe.family].config
    for name, side in requested.items():
        if side is None or side == recipe.preprocessing.size:
            continue
        built = config(**recipe.model_config_values())
        multiple = built.size_multiple if isinstance(built, NetworkConfig) else None
        if multiple is None:
            raise RecipeError(
                f"recipe {recipe.name}: {name} needs an encoder that accepts other sizes, a conv network of family ae, "
                f"vae, beta-vae, cvae, pixel-vae, infovae or vlae without a backbone; leave it out"
            )
        if side % multiple:
            raise RecipeError(f"recipe {recipe.name}: {name} must be a multiple of {multiple}, not {side}")


def _explain(exc: ValidationError, schema: type[BaseModel] | None = None) -> str:
    """The first problem in one line: the setting, what is wrong with it, and its value."""
    error = exc.errors(include_url=False)[0]
    setting = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and schema is not None:
        return f"{setting} is unknown; settings are {', '.join(_settings(schema, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{setting} is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    if not setting:
        return message
    return f"{setting}: {message[0].lower()}{message[1:]}, not {error['input']!r}"


def _settings(schema: type[BaseModel], sections: tuple[int | str, ...]) -> list[str]:
    for section in sections:
        annotation = schema.model_fields[str(section)].annotation
        for choice in (annotation, *get_args(annotation)):
            if isinstance(choice, type) and issubclass(choice, BaseModel):
                schema = choice
    return list(schema.model_fields)
