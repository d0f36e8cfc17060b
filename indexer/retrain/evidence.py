"""Measuring encoders on the held-out items, and the files that keep the result.

An encoder's evidence is stored as `evidence/<encoder_id>.json` in the directory of the retraining: the figures that the
decision stores, and the MAP@R of each product, which the gate compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.measures.crossed import Pigeonhole, by_group
from indexer.measures.metrics import Bootstrap, PerQuery
from indexer.measures.robustness import MAP_AT_R, LabelledVectors, SwapFigure, displacement, query_metrics
from indexer.measures.variance import variance_shares
from indexer.retrain.decision import EncoderFigures, GateSetSummary
from indexer.retrain.gate import Evidence
from indexer.retrain.job import RetrainJob
from training.data.sources import SourceImage
from training.files import publish_file
from training.reference import read_json

if TYPE_CHECKING:
    from indexer.retrain.gate_set import GateSet
    from indexer.vectors import Floats
    from training.encoder import Encoder

VERSION = 2  # of the file; version 1 had no figures by background
KEPT_NUMBERS = 40_000_000  # numbers of swapped vectors kept for variance shares and displacement: 160 MB


@dataclass(frozen=True)
class EncoderEvidence:
    """What was measured of an encoder on a gate set.

    Args:
        backgrounds: names, in the order of the columns of `swapped`.
        products, clean, swapped: see `indexer.retrain.gate.Evidence`.
    """

    figures: EncoderFigures
    set: GateSetSummary
    products: list[str]
    backgrounds: list[str]
    clean: NDArray[np.float64]
    swapped: NDArray[np.float64]

    @property
    def by_product(self) -> Evidence:
        """The part that the gate compares."""
        return Evidence(self.figures.encoder_id, self.products, self.clean, self.swapped)

    def to_json(self) -> dict[str, Any]:
        figures = self.figures.to_json()
        return {
            "version": VERSION,
            **{name: figures.pop(name) for name in ("encoder_id", "family")},
            "set": self.set.to_json(),
            **figures,
            "products": self.products,
            "backgrounds": self.backgrounds,
            "clean": self.clean.tolist(),
            "swapped": self.swapped.tolist(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EncoderEvidence:
        return cls(
            EncoderFigures.from_json(document),
            GateSetSummary.from_json(document["set"]),
            document["products"],
            document["backgrounds"],
            np.array(document["clean"]),
            np.array(document["swapped"]),
        )


def is_current(document: Mapping[str, Any]) -> bool:
    """Whether an evidence file has the current version; other files are measured again."""
    return document.get("version") == VERSION


def collect_evidence(
    job: RetrainJob, encoders: Mapping[str, Path], held_out: Sequence[SourceImage]
) -> dict[str, EncoderEvidence]:
    """The evidence of encoders by id; encoders with a current evidence file are not measured again.

    If photos have disappeared between two measurements, all encoders are measured again, because figures are only
    comparable on the same set.
    """
    paths = {encoder_id: job.directory / "evidence" / f"{encoder_id}.json" for encoder_id in encoders}
    made: GateSet | None = None
    for encoder_id, path in paths.items():
        if path.exists() and is_current(read_json(path)):
            continue
        job.say("evaluate", f"encoder {encoder_id[:12]} ({encoders[encoder_id].name})")
        made = made or make_gate_set(job, held_out)
        evidence = measure(encoders[encoder_id], made, job.plan.seed)
        publish_file(path, (json.dumps(evidence.to_json()) + "\n").encode())
    found = {encoder_id: EncoderEvidence.from_json(read_json(path)) for encoder_id, path in paths.items()}
    first, *others = found.values()
    if any((other.set, other.products) != (first.set, first.products) for other in others):
        for path in paths.values():
            path.unlink()
        return collect_evidence(job, encoders, held_out)
    return found


def make_gate_set(job: RetrainJob, held_out: Sequence[SourceImage]) -> GateSet:
    """The gate set of a retraining; the same each time, as long as its photos are there."""
    from indexer.retrain.gate_set import background_seed, gate_set

    plan = job.plan
    return gate_set(
        f"held-out items of {job.collection}",
        held_out,
        backgrounds=Path(plan.backgrounds) if plan.backgrounds else None,
        count=plan.per_item,
        background_seed=background_seed(job.collection, job.number, plan.seed),
        limit=plan.items,
        seed=plan.seed,
    )


def measure(directory: Path, made: GateSet, seed: int) -> EncoderEvidence:
    """Measure an encoder on a gate set: figures, and MAP@R of each product, clean and on each background."""
    from indexer.evaluate.images import embed_pictures
    from training.encoder import load_encoder

    encoder = load_encoder(directory)
    gallery = LabelledVectors(embed_pictures(encoder, made.gallery), made.products)
    swapped, vectors = _swapped(encoder, made, gallery, seed)
    clean = _clean(encoder, made, gallery, seed)
    names = sorted(set(made.products))
    moved = displacement(vectors, made.products)
    figures = EncoderFigures(
        encoder.encoder_id,
        encoder.family,
        _swap_figures(clean, swapped, names, seed),
        Bootstrap(made.items, seed=seed).interval(moved.ratio),
        variance_shares(vectors, ("item", "background"), seed=seed)["background"],
    )
    return EncoderEvidence(
        figures, made.summary(), names, sorted(set(made.bank.names)), clean[MAP_AT_R], swapped[MAP_AT_R]
    )


def _swapped(encoder: Encoder, made: GateSet, gallery: LabelledVectors, seed: int) -> tuple[PerQuery, Floats]:
    """Metrics `(products, backgrounds)`, and vectors `(I, b, dim)` on as many backgrounds as fit, at least two."""
    from indexer.evaluate.images import embed_pictures

    order = np.random.default_rng(seed).permutation(len(made))
    kept = max(2, KEPT_NUMBERS // (len(made) * encoder.dim))
    columns: list[PerQuery] = []
    vectors: list[Floats] = []
    for number in range(len(made.bank.names)):
        z = np.concatenate([embed_pictures(encoder, block) for block in made.swapped(number)])
        columns.append(query_metrics(gallery, LabelledVectors(z, made.products), encoder.metric, order))
        if number < kept:
            vectors.append(z)
    tables = {}
    for name in columns[0]:
        _, table = by_group(np.stack([column[name] for column in columns], axis=1), made.products, 0)
        tables[name] = by_group(table, made.bank.names, 1)[1]
    return tables, np.stack(vectors, axis=1)


def _clean(encoder: Encoder, made: GateSet, gallery: LabelledVectors, seed: int) -> PerQuery:
    """Metrics `(products,)`: mean over a product's items of the mean over their clean views."""
    from indexer.evaluate.images import embed_pictures

    order = np.random.default_rng(seed).permutation(len(made))
    blocks = [(rows, embed_pictures(encoder, pictures)) for rows, pictures in made.clean()]
    rows = np.concatenate([block for block, _ in blocks])
    queries = LabelledVectors(np.concatenate([z for _, z in blocks]), [made.products[row] for row in rows])
    found = query_metrics(gallery, queries, encoder.metric, order)
    counts = np.bincount(rows, minlength=len(made))
    return {
        name: by_group(np.bincount(rows, values, minlength=len(made)) / counts, made.products, 0)[1]
        for name, values in found.items()
    }


def _swap_figures(clean: PerQuery, swapped: PerQuery, names: list[str], seed: int) -> dict[str, SwapFigure]:
    """Clean mean, swapped mean and retention of each metric, with intervals.

    The swapped intervals resample products and backgrounds, the clean ones only products.
    """
    by_product = Bootstrap(names, seed=seed)
    found = {}
    for name, table in swapped.items():
        both = Pigeonhole(*table.shape, seed=seed)
        found[name] = SwapFigure(by_product.interval(clean[name]), both.interval(table), both.ratio(table, clean[name]))
    return found
