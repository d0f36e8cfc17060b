"""A running retraining: what each of its steps needs to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from indexer.catalogue.home import Home
from indexer.catalogue.records import GenerationRecord, RetrainRecord
from indexer.errors import NotFoundError
from indexer.retrain.plan import RetrainPlan

Say = Callable[[str, str], None]


@dataclass(frozen=True)
class RetrainJob:
    """A retraining of a collection and its plan; `say` is called with a step and a message when the step begins."""

    home: Home
    collection: str
    collection_id: int
    number: int
    plan: RetrainPlan
    say: Say

    @property
    def directory(self) -> Path:
        return self.home.retrain_directory(self.collection, self.number)

    @property
    def record(self) -> RetrainRecord:
        return find_retrain(self.home, self.collection, self.number)

    @property
    def active_generation(self) -> GenerationRecord:
        records = self.home.catalogue.generations.all(self.collection)
        return next(record for record in records if record.status == "active")


def unfinished(home: Home, collection: str) -> RetrainRecord | None:
    return next((r for r in home.catalogue.retrains.all(collection) if r.status == "running"), None)


def find_retrain(home: Home, collection: str, number: int | None) -> RetrainRecord:
    """The retraining with a number, or the last one if the number is None.

    Raises:
        NotFoundError: there is none; the message lists the known numbers.
    """
    records = home.catalogue.retrains.all(collection)
    for record in reversed(records):
        if number in (None, record.number):
            return record
    known = ", ".join(str(record.number) for record in records) or "none"
    raise NotFoundError(
        f"collection {collection!r} has no retraining{f' {number}' if number else ''}; known retrainings: {known}"
    )
