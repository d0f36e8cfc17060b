"""What a retraining is asked to do, and the photos that it trains and judges on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexer.catalogue.home import Home
from indexer.errors import InvalidRequestError
from indexer.retrain.budget import budget
from indexer.retrain.gate import GateRule
from indexer.retrain.power import prospect
from training.data.dataset import unit_hash
from training.data.sources import SourceImage
from training.reference import EncoderDescription, describe_encoder

HELD_OUT = 0.2  # share of the items that candidates are judged on and never train on
LEAST_HELD_OUT = 20
MIN_RECALL = 0.95  # of the new index against exact search, at 10
BACKGROUNDS = 20  # that every held-out item is put on; fewer say little of all the others (docs/studies/gate.md)
STEPS = ("export", "train", "evaluate", "gate", "embed", "build", "verify", "calibrate", "activate")


@dataclass(frozen=True)
class RetrainPlan:
    """What a retraining is asked to do; it is stored, and a run that goes on keeps it.

    Args:
        recipes: names or YAML files, each trained to be a candidate.
        overrides: `key=value`, for all of the recipes.
        backgrounds: folder that held-out items are put on; the sample shop's bank without it.
        held_out: share of the items, told by the hashes of their ids: an item stays held out as the catalogue grows.
        items: most held-out items that are measured.
        per_item: backgrounds that every item is put on, 20 or more.
        minimum_recall: recall@10 against exact search that the new index must reach.
        encoders: directories or pretrained names of encoders that are candidates as they are.
    """

    recipes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    gate: GateRule = GateRule()
    backgrounds: str | None = None
    held_out: float = HELD_OUT
    items: int = 500
    per_item: int = BACKGROUNDS
    minimum_recall: float = MIN_RECALL
    device: str = "auto"
    precision: str = "32"
    seed: int = 0
    encoders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("give one or more recipes or encoders")
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("a recipe or encoder stands twice; name each once")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, not {self.held_out}")
        if self.per_item < BACKGROUNDS:
            raise ValueError(f"per_item must be {BACKGROUNDS} or more, not {self.per_item}")
        if not 0 <= self.minimum_recall <= 1:
            raise ValueError(f"minimum recall must be between 0 and 1, not {self.minimum_recall}")

    @property
    def candidates(self) -> tuple[str, ...]:
        """All that are judged, by the names that the decision gives them."""
        return (*self.recipes, *self.encoders)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RetrainPlan:
        """A stored plan; one of an earlier version, with fewer backgrounds, gets as many as are needed now."""
        values: dict[str, Any] = {**document, "gate": GateRule(**document["gate"])}
        values["per_item"] = max(BACKGROUNDS, values.get("per_item", 0))
        values |= {name: tuple(values[name]) for name in ("recipes", "encoders", "overrides") if name in values}
        return cls(**values)


@dataclass(frozen=True)
class Outlook:
    """What a retraining would do (`--dry-run`), which part of the error budget it may spend, and what it can find."""

    collection: str
    active_encoder: str
    training_images: int
    training_items: int
    held_out_items: int
    recipes: dict[str, str]
    encoders: dict[str, str]
    steps: tuple[str, ...]
    plan: dict[str, Any]
    budget: dict[str, Any]
    detectable: dict[str, Any]


def outlook(home: Home, collection: str, plan: RetrainPlan) -> Outlook:
    """What a plan comes to, with its recipes read and the collection's items counted; nothing is written.

    Raises:
        NitamonoError: what would otherwise be found only after the training.
    """
    from indexer.retrain.gate_set import draw_bank
    from training.recipes import check_device_and_precision, load_recipe

    state = home.catalogue.active_state(collection)
    check_device_and_precision(plan.device, plan.precision)
    if plan.backgrounds is not None:
        draw_bank(Path(plan.backgrounds), plan.per_item, 32, plan.seed)
    recipes = {name: load_recipe(name, plan.overrides).description for name in plan.recipes}
    encoders = {ref: _described(describe_encoder(ref)) for ref in plan.encoders}
    training, held_out = split(home, collection, plan.held_out)
    records = home.catalogue.retrains.all(collection)
    considered = judged_items(held_out, plan)
    found = budget(plan.gate, considered, records)
    each = found.level / len(plan.candidates)
    return Outlook(
        collection,
        state.encoder_id,
        len(training),
        len({image.item_id for image in training}),
        len({image.item_id for image in held_out}),
        recipes,
        encoders,
        STEPS,
        plan.to_json(),
        found.to_json(),
        prospect(plan.gate, records, len(considered), plan.per_item, each).to_json(),
    )


def _described(encoder: EncoderDescription) -> str:
    return str(encoder.card.get("description") or f"an encoder of family {encoder.family}")


def judged_items(held_out: Sequence[SourceImage], plan: RetrainPlan) -> list[str]:
    """The held-out items that candidates are judged on, as far as they can be cut out of their photos."""
    from indexer.swaps.sources import choose

    return sorted({image.item_id for image in choose(held_out, plan.items, plan.seed)})


def split(home: Home, collection: str, share: float) -> tuple[list[SourceImage], list[SourceImage]]:
    """The catalogue's photos to train on and to evaluate on; no item and no photo's content is on both sides.

    Raises:
        InvalidRequestError: fewer than 20 items would be held out.
    """
    photos = home.catalogue.images.photos(home.catalogue.collection_id(collection))
    held_out_ids = {photo.item_id for photo in photos if _place(photo.item_id) < share}
    if len(held_out_ids) < LEAST_HELD_OUT:
        raise InvalidRequestError(
            "held_out",
            f"{len(held_out_ids)} items of {collection!r} would be held out, {LEAST_HELD_OUT} are needed, which takes "
            f"about {round(LEAST_HELD_OUT / share * 1.2)} items at --held-out {share:g}; raise that, or index more",
        )
    learnt = {photo.sha256 for photo in photos if photo.item_id not in held_out_ids}
    sides: tuple[list[SourceImage], list[SourceImage]] = ([], [])
    for photo in photos:
        is_held_out = photo.item_id in held_out_ids
        if is_held_out and photo.sha256 in learnt:
            continue
        mask = Path(photo.mask_uri) if photo.mask_uri else None
        image = SourceImage(photo.item_id, home.uri_path(photo.uri), None, photo.attributes, mask, photo.uri)
        sides[is_held_out].append(image)
    return sides


def _place(item_id: str) -> float:
    """A number in [0, 1) that depends on the id alone, and not as the split of a training run does."""
    return unit_hash("held out\0" + item_id)


def to_rows(images: Sequence[SourceImage]) -> list[dict[str, Any]]:
    return [
        {"item_id": i.item_id, "path": str(i.path), "mask": str(i.mask) if i.mask else None, "attributes": i.attributes}
        for i in images
    ]


def from_rows(rows: Sequence[Mapping[str, Any]]) -> list[SourceImage]:
    return [
        SourceImage(
            r["item_id"], Path(r["path"]), None, r["attributes"], Path(r["mask"]) if r["mask"] else None, r["path"]
        )
        for r in rows
    ]


def folder_name(candidate: str) -> str:
    """A folder for a candidate: its name, or a path's last part with what tells two of one name apart."""
    if "/" not in candidate and not candidate.endswith((".yaml", ".yml")):
        return candidate
    return f"{Path(candidate).stem}-{hashlib.sha256(candidate.encode()).hexdigest()[:8]}"
