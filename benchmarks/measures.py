"""Validate measures by simulation: `python benchmarks/measures.py [--trials N]`.

- Expected calibration error of calibrated probabilities, and of overconfident ones (log-odds times 1.5): coverage of
  its 95 % interval, by `indexer.calibrate.probability.ece_interval` and by resampling around the ECE. Pairs are the ten
  hits of a search, of which at most one is right; `first hits` are only the first ones.
- Variance shares of item and background, with true values of .5 and .3, by `indexer.measures.variance` and by sums of
  squares.

`benchmarks/interval_coverage.py` measures the coverage of intervals of means.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from indexer.calibrate.probability import (
    BINS,
    bins_for,
    ece_interval,
    ece_of_chance,
    equal_mass_bins,
    expected_calibration_error,
)
from indexer.measures.variance import variance_shares

Numbers = NDArray[np.float64]
HITS, POPULATION = 10, 100_000


def searches(rng: np.random.Generator, count: int) -> tuple[Numbers, NDArray[np.bool_]]:
    """True probabilities of the hits `(count, HITS)`, and whether they are right."""
    first = rng.beta(4, 1.5, count)
    rest = 0.8 * (1 - first)[:, None] * rng.dirichlet(np.array([3.0] + 9 * [0.5]), count)[:, : HITS - 1]
    true = np.concatenate([first[:, None], rest], axis=1).clip(1e-4, 1 - 1e-4)
    chance, sums = rng.random(count)[:, None], true.cumsum(axis=1)
    return true, (chance < sums) & (chance >= sums - true)


def resampled(probabilities: Numbers, labels: NDArray[np.bool_], groups: NDArray[np.int64], bins: int) -> Numbers:
    """The interval from resampled groups, with the replicates shifted so that their mean is the ECE."""
    bin_of, count = equal_mass_bins(probabilities, bins), int(groups.max()) + 1
    gaps = np.bincount(groups * bins + bin_of, weights=labels - probabilities, minlength=count * bins)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=500)
    replicates = np.abs(drawn @ gaps.reshape(count, bins)).sum(axis=1) / len(labels)
    value = expected_calibration_error(probabilities, labels, bins)
    ends: Numbers = np.percentile(replicates - replicates.mean() + value, [2.5, 97.5]).clip(0)
    return ends


def calibration_row(count: int, first: bool, sure: float, trials: int) -> str:
    rng, chosen = np.random.default_rng(0), slice(0, 1) if first else slice(None)

    def drawn(queries: int) -> tuple[Numbers, NDArray[np.bool_], NDArray[np.int64]]:
        true, labels = (part[:, chosen] for part in searches(rng, queries))
        claimed = 1 / (1 + ((1 - true) / true) ** sure)
        return claimed.ravel(), labels.ravel(), np.repeat(np.arange(queries), true.shape[1])

    bins = bins_for(count) if first else BINS
    claimed, labels, _ = drawn(POPULATION)
    truth = 0.0 if sure == 1 else expected_calibration_error(claimed, labels, bins)
    found, held = [], np.zeros(2)
    for trial in range(trials):
        claimed, labels, groups = drawn(count)
        interval = ece_interval(claimed, labels, groups, bins=bins, seed=trial)
        old = resampled(claimed, labels, groups, bins)
        held += [old[0] <= truth <= old[1], interval.low <= truth <= interval.high]
        found.append(interval.value)
    chance = ece_of_chance(claimed, bins=bins)
    pairs = f"{len(claimed)} {'first hits' if first else 'pairs'}"
    cells = (f"{truth:.3f}", f"{np.mean(found):.3f}", f"{chance:.3f}", *(f"{share:.2f}" for share in held / trials))
    return f"| {pairs} | {sure:g} | {' | '.join(cells)} |"


def share_row(items: int, backgrounds: int, trials: int) -> str:
    found, squares = [], []
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        z = (
            np.sqrt(0.5) * rng.normal(size=(items, 1, 16))
            + np.sqrt(0.3) * rng.normal(size=(1, backgrounds, 16))
            + np.sqrt(0.2) * rng.normal(size=(items, backgrounds, 16))
        )
        shares = variance_shares(z, ("item", "background"), replicates=2)
        found.append([shares[name].value for name in ("item", "background")])
        z -= z.mean(axis=(0, 1))
        squares.append([np.square(z.mean(axis=axis)).sum() / np.square(z).sum() for axis in (1, 0)])
        squares[-1] = [squares[-1][0] * backgrounds, squares[-1][1] * items]
    cells = [f"{value:.3f}" for value in (*np.mean(squares, axis=0), *np.mean(found, axis=0))]
    return f"| {items} | {backgrounds} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    trials = parser.parse_args().trials
    print(
        "| items | backgrounds | item, squares | background, squares | item | background |", "|---" * 6 + "|", sep="\n"
    )
    for backgrounds in (2, 5, 20):
        print(share_row(60, backgrounds, trials), flush=True)
    head = "| pairs | log-odds times | true error | mean ECE | by chance | coverage, resampling | coverage, interval |"
    print("", head, "|---" * 7 + "|", sep="\n")
    for count, first in ((400, False), (400, True), (100, True)):
        for sure in (1.0, 1.5):
            print(calibration_row(count, first, sure, trials), flush=True)


if __name__ == "__main__":
    main()
