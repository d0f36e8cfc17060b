"""The share of searches whose product is in the catalogue, estimated from the scores of recent queries.

By P(present | best score, next best) of searches of which half are, the share of others is the fixed point of
    share = mean of share r / (share r + (1 - share) (1 - r)),    r that probability of each search,
reached by expectation and maximisation (Saerens, Latinne, Decaestecker: Adjusting the Outputs of a Classifier to New a
Priori Probabilities: A Simple Procedure, Neural Computation 14, 2002, equation 2.9,
https://doi.org/10.1162/089976602753284446). It holds where searches of either kind score as the catalogue's own photos
do; photos that shoppers take score lower, and pass for searches of what is not there.

The standard error is that of maximum likelihood, by the Fisher information, which is the sum over the searches of
((2 r - 1) / (share r + (1 - share) (1 - r)))^2. Where scores hardly tell what is there it is large, and there is no
estimate.
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
MIN_RECENT = 100  # queries: the share of fewer is not known to a tenth
LEAST, MOST = 0.02, 0.99
MOST_ERROR = 0.1  # standard error of a share that is still an answer
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
    """The share among the collection's recent queries, 0.02 to 0.99.

    Raises:
        CalibrationError: too few queries were logged, the catalogue's items have a single photo each (what is learnt of
            other views of a photo does not hold for queries), or scores tell too little of what is there.
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
    if error > MOST_ERROR:
        raise CalibrationError(
            f"the scores of {len(recent.scores)} recent queries tell the share of present products to {error:.2f} "
            "only; give --present SHARE"
        )
    return share


def share_of(balanced: Numbers) -> tuple[float, float]:
    """The share of searches for what is there and its standard error, from P(there) `(n,)` at a share of a half."""
    share = HALF
    for _ in range(STEPS):
        there = share * balanced
        before, share = share, float((there / (there + (1 - share) * (1 - balanced))).mean())
        if abs(share - before) < SETTLED:
            break
    share = float(np.clip(share, LEAST, MOST))
    score = (2 * balanced - 1) / (share * balanced + (1 - share) * (1 - balanced))
    information = float(np.square(score).sum())
    return share, 1 / np.sqrt(information) if information > 0 else float("inf")
