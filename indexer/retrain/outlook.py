"""What a retraining would do, for `nitamono retrain --dry-run`, and the checks before a retraining begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from indexer.catalogue.home import Home
from indexer.errors import NotFoundError
from indexer.retrain.budget import budget
from indexer.retrain.decision import Budget
from indexer.retrain.photos import gate_items, split
from indexer.retrain.plan import STEPS, RetrainPlan
from indexer.retrain.power import Prospect, prospect
from training.reference import EncoderDescription, describe_encoder


@dataclass(frozen=True)
class Outlook:
    """What a retraining would do, the error budget that it may spend, and the differences that it can detect."""

    collection: str
    active_encoder: str
    training_images: int
    training_items: int
    held_out_items: int
    recipes: dict[str, str]
    encoders: dict[str, str]
    steps: tuple[str, ...]
    plan: RetrainPlan
    budget: Budget
    detectable: Prospect


def outlook(home: Home, collection: str, plan: RetrainPlan) -> Outlook:
    """Read a plan's recipes and count the collection's items; writes nothing.

    Raises:
        NitamonoError: a problem that would otherwise appear only after the training.
    """
    from indexer.retrain.gate_set import draw_bank
    from training.recipes import check_device_and_precision, load_recipe

    state = home.catalogue.search_state(collection)
    if state.encoder_id is None:
        raise NotFoundError(f"collection {collection!r} has no index yet; run `nitamono index SOURCE` first")
    check_device_and_precision(plan.device, plan.precision)
    if plan.backgrounds is not None:
        draw_bank(Path(plan.backgrounds), plan.per_item, 32, plan.seed)
    recipes = {name: load_recipe(name, plan.overrides).description for name in plan.recipes}
    encoders = {ref: _summary(describe_encoder(ref)) for ref in plan.encoders}
    training, held_out = split(home, collection, plan.held_out)
    records, items = home.catalogue.retrains.all(collection), gate_items(held_out, plan)
    spend = budget(plan.gate, items, records)
    return Outlook(
        collection=collection,
        active_encoder=state.encoder_id,
        training_images=len(training),
        training_items=len({image.item_id for image in training}),
        held_out_items=len({image.item_id for image in held_out}),
        recipes=recipes,
        encoders=encoders,
        steps=STEPS,
        plan=plan,
        budget=spend,
        detectable=prospect(plan.gate, records, len(items), plan.per_item, spend.level / len(plan.candidates)),
    )


def _summary(encoder: EncoderDescription) -> str:
    return str(encoder.card.get("description") or f"an encoder of family {encoder.family}")
