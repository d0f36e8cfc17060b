"""Coverage and width of 95 % intervals: `python benchmarks/interval_coverage.py`.

Simulates items with a known true mean: `binary` (like recall@1), `ap` (like average precision: mostly 1, the rest zeros
and values in between) and `smooth` (beta distribution, never 0 or 1). Compares the percentile bootstrap with
`Bootstrap.share`; and for paired encoders, the difference and ratio of two means by percentiles with
`Bootstrap.difference` and `Bootstrap.retention`. Prints Markdown tables of coverage / mean width.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Bootstrap

Numbers = NDArray[np.float64]
SIZES = (20, 60, 231)
MEANS = (0.5, 0.9, 0.98, 0.995)
CHANGES = (0.3, 0.1, 0.02, 0.005)
REPLICATES = 1000


def binary(rng: np.random.Generator, shape: tuple[int, int], mean: float) -> Numbers:
    return (rng.random(shape) < mean).astype(np.float64)


def average_precision(rng: np.random.Generator, shape: tuple[int, int], mean: float) -> Numbers:
    """Mostly ones; half of the loss comes from zeros, half from values in between."""
    chance, values = rng.random(shape), np.ones(shape)
    between = chance < 1 - mean
    values[between] = rng.beta(2, 2, int(between.sum()))
    values[chance > 1 - (1 - mean) / 2] = 0.0
    return values


def smooth(rng: np.random.Generator, shape: tuple[int, int], mean: float) -> Numbers:
    return rng.beta(8 * mean, 8 * (1 - mean), shape)


def paired(rng: np.random.Generator, shape: tuple[int, int], change: float) -> tuple[Numbers, Numbers, float, float]:
    """Binary results of two encoders, and their true difference and ratio; `change` is lost, half as much is gained."""
    chance = rng.random(shape)
    values, base = np.ones(shape), np.ones(shape)
    values[chance < change] = 0.0
    base[(chance >= change) & (chance < 1.5 * change)] = 0.0
    both = (chance >= 1.5 * change) & (chance < 2.5 * change)
    values[both] = base[both] = 0.0
    return values, base, -change / 2, (1 - 2 * change) / (1 - 1.5 * change)


def percentiles(items: int) -> Callable[..., Numbers]:
    """The plain percentile bootstrap of means or ratios of values `(T, items)`; gives intervals `(2, T)`."""
    weights = np.random.default_rng(0).multinomial(items, np.full(items, 1 / items), size=REPLICATES) / items

    def ends(values: Numbers, base: Numbers | None = None) -> Numbers:
        means = weights @ values.T if base is None else (weights @ values.T) / (weights @ base.T)
        found: Numbers = np.nanpercentile(means, [2.5, 97.5], axis=0)
        return found

    return ends


def coverage(ends: Numbers, truth: float) -> str:
    """`coverage / mean width` of intervals `(2, T)`."""
    held = (ends[0] <= truth + 1e-12) & (ends[1] >= truth - 1e-12)
    return f"{held.mean():.3f} / {(ends[1] - ends[0]).mean():.3f}"


def means_table(trials: int, rng: np.random.Generator) -> str:
    lines = ["| values | items | true mean | percentile bootstrap | `Bootstrap.share` |", "|---|---|---|---|---|"]
    for name, draw in (("binary", binary), ("ap", average_precision), ("smooth", smooth)):
        for items in SIZES:
            over, plain = Bootstrap([f"{n:03d}" for n in range(items)]), percentiles(items)
            for mean in MEANS:
                values = draw(rng, (trials, items), mean)
                ours = np.array([over.share(row)[1:] for row in values]).T
                cells = [coverage(plain(values), mean), coverage(ours, mean)]
                lines.append(f"| {name} | {items} | {mean:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pairs_table(trials: int, rng: np.random.Generator) -> str:
    lines = [
        "| items | lost | difference, percentile | `difference` | ratio, percentile | `retention` |",
        "|---|---|---|---|---|---|",
    ]
    for items in SIZES:
        over, plain = Bootstrap([f"{n:03d}" for n in range(items)]), percentiles(items)
        for change in CHANGES:
            values, base, difference, ratio = paired(rng, (trials, items), change)
            ours = [
                np.array([of(*rows)[1:] for rows in zip(values, base, strict=True)]).T
                for of in (over.difference, over.retention)
            ]
            cells = [
                coverage(plain(values - base), difference), coverage(ours[0], difference),
                coverage(plain(values, base), ratio), coverage(ours[1], ratio),
            ]  # fmt: skip
            lines.append(f"| {items} | {change:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    print("Coverage / mean width of 95 % intervals", means_table(asked.trials, rng), sep="\n\n", end="\n\n")
    print(pairs_table(asked.trials, rng))


if __name__ == "__main__":
    main()
