"""`nitamono retrain`: train on the catalogue's own photos, and promote a candidate only if it passes the gate.

export -> train each recipe -> evaluate on held-out items -> gate against the active encoder -> embed with the winner ->
build a generation -> verify -> calibrate -> activate; the old generation is kept. Each step stores its result
atomically, and is skipped if the result exists. A run that was killed at any moment is resumed by the same command, and
ends with the same result.

    <home>/retrains/<collection>-<number>/export.json            photos to train and to evaluate on
                                         /models/<recipe>/       training runs, which become encoder directories
                                         /evidence/<id>.json     an encoder's figures on the held-out items

The catalogue also stores the plan, the decision with its evidence, and the number of the generation.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager

from indexer.catalogue.home import Home
from indexer.catalogue.records import RetrainRecord
from indexer.errors import InvalidRequestError, NotFoundError
from indexer.generations.store import remove_unused
from indexer.retrain.candidates import prepare_candidates
from indexer.retrain.decide import decide
from indexer.retrain.decision import Decision
from indexer.retrain.job import RetrainJob, Say, find_retrain, unfinished
from indexer.retrain.outlook import outlook
from indexer.retrain.photos import export_photos
from indexer.retrain.plan import RetrainPlan
from indexer.retrain.promote import promote


def retrain(
    home: Home, collection: str, plan: RetrainPlan | None, *, say: Say = lambda step, text: None
) -> RetrainRecord:
    """Run a retraining, or resume the unfinished one.

    Args:
        plan: None to resume.
        say: called with a step and a message when the step begins.

    Raises:
        InvalidRequestError: a retraining with another plan is unfinished, there is none to resume, or the collection
            has too few items.
        BusyError: another process is retraining or indexing this collection.
        MismatchError: another encoder was activated during the retraining; run it again.
    """
    with _lock(home, collection):
        job = _begin(home, collection, plan, say)
        _run(job)
        return job.record


def _begin(home: Home, collection: str, plan: RetrainPlan | None, say: Say) -> RetrainJob:
    """The unfinished retraining, or a new one."""
    collection_id = home.catalogue.collection_id(collection)
    record = unfinished(home, collection)
    if record is None:
        if plan is None:
            raise InvalidRequestError(
                "recipes", f"no retraining of {collection!r} is unfinished; give --recipes A,B or --encoders"
            )
        outlook(home, collection, plan)  # reports an impossible plan before anything is stored
        number = home.catalogue.retrains.add(collection_id, plan.to_json())
        return RetrainJob(home, collection, collection_id, number, plan, say)
    stored = RetrainPlan.from_json(record.plan)
    if plan is not None and plan != stored:
        raise InvalidRequestError(
            "recipes",
            f"retraining {record.number} of {collection!r} is unfinished and has another plan; resume it with "
            "`nitamono retrain` without --recipes and --encoders, or drop it with `nitamono retrain abandon`",
        )
    return RetrainJob(home, collection, collection_id, record.number, stored, say)


def _run(job: RetrainJob) -> None:
    training, held_out = export_photos(job)
    candidates = prepare_candidates(job, training)
    decision = decide(job, candidates, held_out)
    if decision.winner is None:
        job.home.catalogue.retrains.end(job.collection_id, job.number, "refused", None)
        return
    with job.home.lock(f"collection-{job.collection}", wait=True):
        generation = promote(job, decision)
    job.home.catalogue.retrains.end(job.collection_id, job.number, "promoted", generation.number)


def _lock(home: Home, collection: str) -> AbstractContextManager[None]:
    """One process at a time retrains a collection, or abandons its retraining."""
    return home.lock(f"retrain-{collection}", busy=f"collection {collection!r} is being retrained")


def abandon(home: Home, collection: str) -> RetrainRecord:
    """End the unfinished retraining of a collection, and remove its files."""
    with _lock(home, collection):
        record = unfinished(home, collection)
        if record is None:
            raise NotFoundError(f"no retraining of {collection!r} is unfinished")
        decision = Decision.of(record)
        if decision is not None and decision.winner_id:
            with home.lock(f"collection-{collection}", wait=True):
                remove_unused(home, collection, decision.winner_id)
        home.catalogue.retrains.end(home.catalogue.collection_id(collection), record.number, "abandoned", None)
        shutil.rmtree(home.retrain_directory(collection, record.number), ignore_errors=True)
    return find_retrain(home, collection, record.number)
