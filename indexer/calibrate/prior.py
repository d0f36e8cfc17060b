"""Estimates the share of queries whose product is in the catalogue, from the scores of recent queries.

Let r = P(present | best score, second best score) for queries half of which are present. The share among other queries
is the fixed point of
    share = mean of share r / (share r + (1 - share) (1 - r)),
found by expectation maximisation (Saerens, Latinne, Decaestecker: Adjusting the Outputs of a Classifier to New a
Priori Probabilities: A Simple Procedure, Neural Computation 14, 2002, equation 2.9,
https://doi.org/10.1162/089976602753284446). The estimate assumes that queries score like the catalogue's own photos;
photos taken by shoppers score lower and are mistaken for queries whose product is absent.

The standard error is that of maximum likelihood, from the Fisher information: the sum over the queries of
((2 r - 1) / (share r + (1 - share) (1 - r)))^2. It is large if scores hardly separate present from absent products;
then there is no estimate.
"""

from __future__ import annotations

import numpy as np

from indexer.calibrate.pairs import collect_pairs, recent_first_hits
from indexer.calibrate.probability import Numbers, fit
from indexer.catalogue.home import Home
from indexer.errors import CalibrationError
from training.data.decode import ImageLimits
from training.reference import EncoderDescription

HALF = 0.5
MIN_RECENT = 100  # queries; with fewer, the share is not known to within 0.1
LEAST, MOST = 0.02, 0.99
MAX_ERROR = 0.1  # largest acceptable standard error of the share
STEPS, SETTLED = 1000, 1e-6


def estimate_present(
    home: Home,
    collection_id: int,
    encoder: EncoderDescription,
    *,
    queries: int,
    seed: int,
    limits: ImageLimits | None = None,
    device: str = "cpu",
) -> float:
    """The share of the collection's recent queries whose product is present, clipped to 0.02 to 0.99.

    Raises:
        CalibrationError: too few queries are logged; items have a single photo each (a curve fitted to other views of
            one photo does not hold for queries); or scores separate present from absent products too poorly.
    """
    recent = recent_first_hits(home, collection_id, encoder)
    if len(recent.scores) < MIN_RECENT:
        raise CalibrationError(
            f"{len(recent.scores)} recent queries are stored, {MIN_RECENT} are needed to estimate the share of present "
            "products; give --present SHARE, or let `nitamono serve` log more"
        )
    pairs = collect_pairs(
        home, collection_id, encoder, queries=queries, present=HALF, seed=seed, limits=limits, device=device
    )
    if pairs.truth != "photos":
        raise CalibrationError(
            "items with several photos are needed to estimate the share of present products; give --present SHARE"
        )
    first = pairs.first
    curve = fit(pairs.scores[first], pairs.others[first], pairs.present_search[first], pairs.groups[first], seed=seed)
    share, error = share_of(curve(recent.scores, recent.others))
    if error > MAX_ERROR:
        raise CalibrationError(
            f"the standard error of the share of present products is {error:.2f} after {len(recent.scores)} recent "
            f"queries, above {MAX_ERROR:g}; give --present SHARE"
        )
    return share


def share_of(balanced: Numbers) -> tuple[float, float]:
    """The share of present products and its standard error, from P(present) `(n,)` at a share of one half."""
    share = HALF
    for _ in range(STEPS):
        present = share * balanced
        before, share = share, float((present / (present + (1 - share) * (1 - balanced))).mean())
        if abs(share - before) < SETTLED:
            break
    share = float(np.clip(share, LEAST, MOST))
    score = (2 * balanced - 1) / (share * balanced + (1 - share) * (1 - balanced))
    information = float(np.square(score).sum())
    return share, 1 / np.sqrt(information) if information > 0 else float("inf")
