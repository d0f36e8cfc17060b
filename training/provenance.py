"""What an encoder was trained from and how: the contents of its card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.data.dataset import Dataset, Skipped
from training.recipes import Recipe

PACKAGES = ("nitamono", "torch", "lightning", "numpy", "pillow", "simplejpeg")
LISTED = 20  # skipped images that a card lists; all are counted


def build_card(
    recipe: Recipe, dataset: Dataset, counts: Mapping[str, int], run: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """The card of an encoder of images as a JSON document; it contains item ids of skipped images but no paths."""
    data = {
        "fingerprint": dataset.fingerprint,
        **counts,
        **({"masks": dataset.mask_counts} if dataset.mask_sources else {}),
        **describe_skipped(dataset.skipped, "images"),
    }
    return compose_card(recipe, describe_labels(recipe.objective.condition, counts), data, run, figures)


def compose_card(
    recipe: Recipe, trained_from: str, data: Mapping[str, Any], run: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """The card of an encoder of images or drawings."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "trained_from": trained_from,
        "data": dict(data),
        "recipe": _without_paths(recipe),
        "seed": recipe.seed,
        "commit": git_commit(Path(__file__).parent),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "run": run,
        "figures": figures,
    }


def describe_skipped(skipped: Sequence[Skipped], kind: str) -> dict[str, Any]:
    """The entries of a card's data on what was skipped: the number, and the first of them as `skipped_KIND`."""
    listed = [{"where": where, "reason": reason} for where, reason in skipped[:LISTED]]
    return {"skipped": len(skipped), f"skipped_{kind}": listed}


def describe_labels(condition: str | None, counts: Mapping[str, int]) -> str:
    """The training data and labels of a recipe's condition: `label-free: ...`, or the source of the labels."""
    photos = f"{counts['images']:,} photos of {counts['items']:,} items"
    if condition in (None, "background"):
        return f"label-free: {photos}"
    return f"the catalogue's own {condition}: {photos}"


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    document = recipe.model_dump(mode="json")
    if document["backgrounds"] and document["backgrounds"]["folder"]:
        document["backgrounds"]["folder"] = Path(document["backgrounds"]["folder"]).name
    if document["backbone_weights"]:
        document["backbone_weights"] = Path(document["backbone_weights"]).name
    return document


def git_commit(folder: Path) -> str | None:
    """The commit of the git checkout that contains a folder; None outside of a checkout."""
    for parent in (folder, *folder.parents):
        git = parent / ".git"
        if git.is_dir():
            return _head(git)
    return None


def _head(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        ref = head.removeprefix("ref: ")
        if (git / ref).is_file():
            return (git / ref).read_text(encoding="utf-8").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(ref)}$", packed, re.MULTILINE)
    return found.group(1) if found else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
