"""What a retraining decides on: figures of encoders on held-out items."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.retrain.gate import Evidence

if TYPE_CHECKING:
    from indexer.measures.metrics import PerQuery
    from indexer.measures.robustness import Photos
    from indexer.retrain.gate_set import GateSet
    from indexer.vectors import Floats
    from training.encoder import Encoder

VERSION = 2  # of the document: 1 had no figure of each background
KEPT_NUMBERS = 40_000_000  # of swapped vectors kept for shares and displacement: 160 MB; further backgrounds have none


def measure(directory: Path, made: GateSet, seed: int) -> dict[str, Any]:
    """An encoder's figures on the gate's set, and its MAP@R of each product, clean and on each background."""
    from indexer.evaluate.images import embed_pictures
    from indexer.measures.metrics import Bootstrap
    from indexer.measures.robustness import MAP_AT_R, Photos, displacement
    from indexer.measures.variance import variance_shares
    from training.encoder import load_encoder

    encoder = load_encoder(directory)
    gallery = Photos(embed_pictures(encoder, made.gallery), made.products)
    swapped, vectors = _swapped(encoder, made, gallery, seed)
    clean = _clean(encoder, made, gallery, seed)
    names = sorted(set(made.products))
    moved = displacement(vectors, made.products)
    return {
        "version": VERSION,
        "encoder_id": encoder.encoder_id,
        "family": encoder.family,
        "set": made.to_json(),
        "swap": _figures(clean, swapped, names, seed),
        "displacement": Bootstrap(made.items, seed=seed).interval(moved.ratio).to_json(),
        "background_share": variance_shares(vectors, ("item", "background"), seed=seed)["background"].to_json(),
        "products": names,
        "backgrounds": sorted(set(made.bank.names)),
        "clean": clean[MAP_AT_R].tolist(),
        "swapped": swapped[MAP_AT_R].tolist(),
    }  # fmt: skip


def is_current(document: Mapping[str, Any]) -> bool:
    """Whether evidence is of this version; what an unfinished run of an earlier one measured is measured again."""
    return document.get("version") == VERSION


def to_evidence(document: Mapping[str, Any]) -> Evidence:
    return Evidence(
        document["encoder_id"], document["products"], np.array(document["clean"]), np.array(document["swapped"])
    )


def figures(document: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the evidence that is stored with the decision: figures, without each product's."""
    return {name: document[name] for name in ("encoder_id", "family", "swap", "displacement", "background_share")}


def _swapped(encoder: Encoder, made: GateSet, gallery: Photos, seed: int) -> tuple[PerQuery, Floats]:
    """Metrics `(products, backgrounds)`, and vectors `(I, b, dim)` on as many backgrounds as fit, two or more."""
    from indexer.evaluate.images import embed_pictures
    from indexer.measures.crossed import by_group
    from indexer.measures.robustness import Photos, query_metrics

    order = np.random.default_rng(seed).permutation(len(made))
    kept = max(2, KEPT_NUMBERS // (len(made) * encoder.dim))
    columns: list[PerQuery] = []
    vectors: list[Floats] = []
    for number in range(len(made.bank.names)):
        z = np.concatenate([embed_pictures(encoder, block) for block in made.swapped(number)])
        columns.append(query_metrics(gallery, Photos(z, made.products), encoder.metric, order))
        if number < kept:
            vectors.append(z)
    tables = {}
    for name in columns[0]:
        _, table = by_group(np.stack([column[name] for column in columns], axis=1), made.products, 0)
        tables[name] = by_group(table, made.bank.names, 1)[1]
    return tables, np.stack(vectors, axis=1)


def _clean(encoder: Encoder, made: GateSet, gallery: Photos, seed: int) -> PerQuery:
    """Metrics `(products,)`: the mean over a product's items of the mean over their clean views."""
    from indexer.evaluate.images import embed_pictures
    from indexer.measures.crossed import by_group
    from indexer.measures.robustness import Photos, query_metrics

    order = np.random.default_rng(seed).permutation(len(made))
    blocks = [(rows, embed_pictures(encoder, pictures)) for rows, pictures in made.clean()]
    rows = np.concatenate([block for block, _ in blocks])
    queries = Photos(np.concatenate([z for _, z in blocks]), [made.products[row] for row in rows])
    found = query_metrics(gallery, queries, encoder.metric, order)
    counts = np.bincount(rows, minlength=len(made))
    return {
        name: by_group(np.bincount(rows, values, minlength=len(made)) / counts, made.products, 0)[1]
        for name, values in found.items()
    }


def _figures(clean: PerQuery, swapped: PerQuery, names: list[str], seed: int) -> dict[str, Any]:
    """By metric the clean and the swapped mean and the second over the first, with intervals.

    Swapped ones resample products and backgrounds, clean ones products.
    """
    from indexer.measures.crossed import Pigeonhole
    from indexer.measures.metrics import Bootstrap
    from indexer.measures.robustness import SwapFigure

    by_product = Bootstrap(names, seed=seed)
    found = {}
    for name, table in swapped.items():
        both = Pigeonhole(*table.shape, seed=seed)
        figure = SwapFigure(by_product.interval(clean[name]), both.interval(table), both.ratio(table, clean[name]))
        found[name] = figure.to_json()
    return found
