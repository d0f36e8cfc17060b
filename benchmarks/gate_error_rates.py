"""Error rates and power of the gate: `python benchmarks/gate_error_rates.py [TABLE...] [--trials N]`.

Encoders are simulated. Encoder k finds item i on background b if this sum of normal variables is positive:

    mean_k + item_i + background_b + both_ib + own_ki + own_kb + own_kib

Encoders with the same mean are therefore equal on average over all items and backgrounds, but differ on any sample. The
standard deviations are chosen to reproduce the spread of differences between real encoders (`spread`). A candidate with
a gain of .05 has the mean for which its true MAP@R is .05 higher. Clean queries are simulated in the same way, with an
item's views.

The tables are in Markdown, with the largest standard error of their figures:

    bounds       how often a bound at 5 % is above 0 for an equal encoder: resampled items (the rule until now),
                 resampled items and backgrounds (pigeonhole bootstrap), crossed random effects (the gate)
    retrainings  how often one or ten retrainings with equal encoders promote a candidate
    clean        how often a candidate passes the clean test if it loses nothing, or as much as the margin
    power        how often a candidate with a gain of .02 to .10 is promoted
    spending     power over successive retrainings for several ways to spend the error budget
    spread       differences between the encoders that follow (`spread default hog`), on drawn items

"The rule until now" is the rule before the present gate, for comparison: the same five backgrounds in every retraining,
a bound by resampled items at 1 - .05 / candidates, and a mean clean loss of at most .02 with one view of each item.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from indexer.measures.crossed import Pigeonhole, crossed_bound, loss_bound, loss_size, spread
from indexer.measures.metrics import Bootstrap
from indexer.retrain.gate import GateRule

Array = NDArray[np.float64]
ALPHA, OLD_MARGIN, OLD_BACKGROUNDS, VIEWS = 0.05, 0.02, 5, 6
ITEMS = (20, 60, 200)
RULES = ("the rule until now", "new bound, 5 % each", "the gate")
SPREAD = "product | background | both | clean, 1 view | clean, 6 views | size |\n|---|---|---|---|---|---|---|"
GAINS = (0.02, 0.04, 0.06, 0.08, 0.10)


@dataclass(frozen=True)
class World:
    """Means and standard deviations of the variables that decide whether an item is found."""

    swapped: float = 1.0  # mean
    clean: float = 2.0
    item: float = 0.8
    background: float = 0.3
    both: float = 0.5
    own_item: float = 0.4
    own_background: float = 0.15
    own_both: float = 0.5
    view: float = 0.4
    own_view: float = 0.4

    @property
    def scale(self) -> float:
        return self._deviation(
            self.item, self.background, self.both, self.own_item, self.own_background, self.own_both
        )  # fmt: skip

    @property
    def found(self) -> float:
        """True swapped MAP@R."""
        return float(norm.cdf(self.swapped / self.scale))

    def shift(self, gain: float) -> float:
        """The increase of the mean that raises the true swapped MAP@R by `gain`."""
        return _shift(self.swapped, self.scale, gain)

    def clean_shift(self, gain: float) -> float:
        return _shift(self.clean, self._deviation(self.item, self.own_item, self.view, self.own_view), gain)

    @staticmethod
    def _deviation(*parts: float) -> float:
        return float(np.sqrt(np.square(parts).sum()))


WORLDS = {
    "as measured": World(),
    "backgrounds decide": World(own_item=0.1, own_background=0.5),
    "middling": World(swapped=0.3, clean=0.8),
}


def _shift(mean: float, deviation: float, gain: float) -> float:
    return float(deviation * norm.ppf(norm.cdf(mean / deviation) + gain) - mean)


class Shop:
    """Simulated held-out items."""

    def __init__(self, world: World, items: int, rng: np.random.Generator) -> None:
        self.world, self.items, self.rng = world, items, rng
        self.item = rng.normal(0, world.item, items)
        self.view = rng.normal(0, world.view, (items, VIEWS))

    def backgrounds(self, count: int) -> Array:
        """The effects of newly drawn backgrounds on the items `(items, count)`."""
        world, rng = self.world, self.rng
        return rng.normal(0, world.background, count) + rng.normal(0, world.both, (self.items, count))

    def encoder(self, *, gain: float = 0.0, clean: float = 0.0) -> Encoder:
        world = self.world
        own = self.rng.normal(0, world.own_item, self.items)
        return Encoder(self, own, world.swapped + world.shift(gain), world.clean + world.clean_shift(clean))


@dataclass
class Encoder:
    shop: Shop
    own: Array
    mean: float
    clean_mean: float

    def swapped(self, backgrounds: Array) -> Array:
        """Whether each item is found on each background `(items, backgrounds)`."""
        shop, rng = self.shop, self.shop.rng
        own = rng.normal(0, shop.world.own_background, backgrounds.shape[1])
        own = own + rng.normal(0, shop.world.own_both, backgrounds.shape)
        return (self.mean + (shop.item + self.own)[:, None] + backgrounds + own > 0).astype(np.float64)

    def clean(self) -> Array:
        """Whether each clean view is found `(items, VIEWS)`."""
        shop, rng = self.shop, self.shop.rng
        own = rng.normal(0, shop.world.own_view, shop.view.shape)
        return (self.clean_mean + (shop.item + self.own)[:, None] + shop.view + own > 0).astype(np.float64)


@cache
def names(count: int) -> list[str]:
    return [f"item {number:04d}" for number in range(count)]


@cache
def resampling(items: int) -> Bootstrap:
    return Bootstrap(names(items), replicates=2000)


def old_bound(table: Array, level: float) -> float:
    return resampling(len(table)).lower_bound(table.mean(axis=1), 1 - level)


@cache
def pigeons(items: int, backgrounds: int) -> Pigeonhole:
    return Pigeonhole(items, backgrounds, replicates=1000)


def pigeonhole_bound(table: Array, level: float) -> float:
    return float(np.percentile(pigeons(*table.shape).means(table), 100 * level))


def new_bound(table: Array, level: float) -> float:
    return crossed_bound(table, 1 - level).low


BOUNDS: dict[str, Callable[[Array, float], float]] = {
    "items alone": old_bound, "pigeonhole": pigeonhole_bound, "crossed": new_bound,
}  # fmt: skip


def bounds(trials: int) -> None:
    print(f"| encoders | items | backgrounds | {' | '.join(BOUNDS)} |\n{'|---' * (3 + len(BOUNDS))}|")
    for name, world in WORLDS.items():
        for items in ITEMS:
            for count in (5, 20):
                rng = np.random.default_rng(items * count)
                above = dict.fromkeys(BOUNDS, 0)
                for _ in range(trials):
                    shop = Shop(world, items, rng)
                    behind = shop.backgrounds(count)
                    table = shop.encoder().swapped(behind) - shop.encoder().swapped(behind)
                    for kind, bound in BOUNDS.items():
                        above[kind] += bound(table, ALPHA) > 0
                print(f"| {name} | {items} | {count} | {_shares(above.values(), trials)} |", flush=True)
    print(f"\n{trials} trials; standard error at 5 %: {_error(ALPHA, trials)}\n")


def successive(
    world: World, items: int, candidates: int, rng: np.random.Generator, *, runs: int = 10
) -> dict[str, int]:
    """The first of successive retrainings with equal encoders in which each rule promotes one (0: none).

    Only swapped bounds are tested. The gate's levels are those of `indexer.retrain.budget` before any promotion.
    """
    shop = Shop(world, items, rng)
    active = shop.encoder()
    kept = shop.backgrounds(OLD_BACKGROUNDS)
    of_active = active.swapped(kept)
    ended = dict.fromkeys(RULES, 0)
    for run in range(1, runs + 1):
        behind = shop.backgrounds(20)
        anew = active.swapped(behind)
        others = [shop.encoder() for _ in range(candidates)]
        tables = [other.swapped(behind) - anew for other in others]
        above = (
            any(old_bound(other.swapped(kept) - of_active, ALPHA / candidates) > 0 for other in others),
            any(new_bound(table, ALPHA / candidates) > 0 for table in tables),
            any(new_bound(table, ALPHA / (run * (run + 1)) / candidates) > 0 for table in tables),
        )
        for name, promoted in zip(ended, above, strict=True):
            ended[name] = ended[name] or run * promoted
        if all(ended.values()):
            break
    return ended


def retrainings(trials: int) -> None:
    head = " | ".join(f"{rule}, {when}" for when in ("first", "in ten") for rule in RULES)
    print(f"| encoders | items | candidates | {head} |\n{'|---' * (3 + 2 * len(RULES))}|")
    for name in ("as measured", "backgrounds decide"):
        world = WORLDS[name]
        for items in ITEMS:
            for candidates in (1, 5):
                rng = np.random.default_rng(items + candidates)
                ended = [successive(world, items, candidates, rng) for _ in range(trials)]
                counts = [sum(e[rule] == 1 for e in ended) for rule in RULES]
                counts += [sum(e[rule] > 0 for e in ended) for rule in RULES]
                print(f"| {name} | {items} | {candidates} | {_shares(counts, trials)} |", flush=True)
    print(f"\n{trials} trials; standard error at 5 %: {_error(ALPHA, trials)}\n")


def lost_wholly(share: float, items: int, rng: np.random.Generator) -> Array:
    """Differences of a candidate that finds no view of some items, and is equal on all others."""
    return -(rng.random(items) < share).astype(np.float64)


def clean(trials: int) -> None:
    margin = GateRule().margin
    head = ("loses nothing", "loses the margin", "loses the margin in whole items")
    print(f"| encoders | items | {' | '.join(f'{h}, old | gate' for h in head)} |\n{'|---' * 8}|")
    for name, world in WORLDS.items():
        for items in ITEMS:
            rng = np.random.default_rng(items)
            passed = np.zeros(6)
            for _ in range(trials):
                shop = Shop(world, items, rng)
                active = shop.encoder().clean()
                even = [shop.encoder(clean=-loss).clean() - active for loss in (0.0, OLD_MARGIN, margin)]
                whole = [lost_wholly(loss, items, rng) for loss in (OLD_MARGIN, margin)]
                for place, one_view in enumerate((even[0][:, 0], even[1][:, 0], whole[0])):
                    passed[2 * place] += one_view.mean() >= -OLD_MARGIN
                for place, values in enumerate((even[0].mean(axis=1), even[2].mean(axis=1), whole[1])):
                    passed[2 * place + 1] += loss_bound(values, 1 - ALPHA).low > -margin
            print(f"| {name} | {items} | {_shares(passed, trials)} |", flush=True)
    print(f"\nmargins {OLD_MARGIN} and {margin}; {trials} trials; standard error at 5 %: {_error(ALPHA, trials)}\n")


def promoted(shop: Shop, gain: float, levels: Sequence[float]) -> list[bool]:
    """Whether a candidate with a gain and no loss is promoted: by the rule until now, and by the gate at each level."""
    active, candidate = shop.encoder(), shop.encoder(gain=gain)
    kept, behind = shop.backgrounds(OLD_BACKGROUNDS), shop.backgrounds(20)
    lost = candidate.clean() - active.clean()
    old = old_bound(candidate.swapped(kept) - active.swapped(kept), ALPHA) > 0 and lost[:, 0].mean() >= -OLD_MARGIN
    holds = loss_bound(lost.mean(axis=1), 1 - ALPHA).low > -GateRule().margin
    gained = candidate.swapped(behind) - active.swapped(behind)
    return [
        old,
        *(holds and crossed_bound(gained, 1 - level).low > 0 for level in levels),
    ]


def power(trials: int) -> None:
    runs = (1, 2, 5, 10)
    levels = [ALPHA / (run * (run + 1)) for run in runs]
    head = ["the rule until now", *(f"the gate, retraining {run}" for run in runs)]
    print(f"| encoders | items | gain | {' | '.join(head)} |\n{'|---' * (3 + len(head))}|")
    for name in ("as measured", "middling"):
        for items in (60, 200, 500):
            for gain in GAINS:
                rng = np.random.default_rng(items)
                rows = [promoted(Shop(WORLDS[name], items, rng), gain, levels) for _ in range(trials)]
                print(f"| {name} | {items} | +{gain:.2f} | {_shares(np.sum(rows, axis=0), trials)} |", flush=True)
    print(f"\n{trials} trials; largest standard error {_error(0.5, trials)}\n")


def spending(_: int) -> None:
    """Power at the n-th retraining of a normal test whose true mean is some standard errors above 0."""
    n = np.arange(1, 100_001)
    tail = 1 / np.log(n[-1])
    ways = {
        "1 / (n (n + 1))": 1 / (n * (n + 1.0)),
        "6 / (pi n)^2": 6 / (np.pi * n) ** 2,
        "1 / ((n + 1) log^2 (n + 1))": 1 / ((n + 1) * np.log(n + 1) ** 2),
        "0.8^n": 0.8**n,
        "the same for ten": (n <= 10) / 10.0,
    }
    print(f"| share of the n-th | standard errors | n = 1 | 2 | 5 | 10 | 20 | mean of 1 to 10 |\n{'|---' * 8}|")
    for name, share in ways.items():
        level = ALPHA * share / (share.sum() + (tail if "log" in name else 0))
        for far in (2.5, 3.5, 4.5):
            found = norm.cdf(far - norm.isf(level[:20]))
            cells = " | ".join(f"{found[at - 1]:.2f}" for at in (1, 2, 5, 10, 20))
            print(f"| {name} | {far} | {cells} | {found[:10].mean():.2f} |")
    print()


def spreads(refs: Sequence[str], items: int = 120, backgrounds: int = 20) -> None:
    """Spread of the differences between each pair of encoders, on drawn items."""
    from indexer.evaluate.images import embed_pictures
    from indexer.measures.ground_truth import other_view
    from indexer.measures.robustness import MAP_AT_R, LabelledVectors, query_metrics
    from indexer.swaps.sources import studio_set
    from training.encoder import load_encoder

    made = studio_set("shop", items, per_item=backgrounds, seed=777, factors=False)
    rng = np.random.default_rng(0)
    views = [made.clean, *(np.stack([other_view(rng, picture)[0] for picture in made.clean]) for _ in range(VIEWS - 1))]
    order = rng.permutation(items)
    found: dict[str, tuple[Array, Array]] = {}
    for ref in refs:
        encoder = load_encoder(ref)
        gallery = LabelledVectors(embed_pictures(encoder, made.gallery), made.products)

        def of(pictures: NDArray[np.uint8], encoder: Any = encoder, gallery: LabelledVectors = gallery) -> Array:
            queries = LabelledVectors(embed_pictures(encoder, pictures), made.products)
            return query_metrics(gallery, queries, encoder.metric, order)[MAP_AT_R]

        found[ref] = (
            np.stack([of(made.swapped[:, b]) for b in range(backgrounds)], axis=1),
            np.stack([of(view) for view in views], axis=1),
        )
        print(f"{ref}: swapped {found[ref][0].mean():.3f}, clean {found[ref][1].mean():.3f}")
    print(f"\n| pair | {SPREAD}")
    for place, first in enumerate(refs):
        for second in refs[:place]:
            swapped, lost = (found[first][part] - found[second][part] for part in (0, 1))
            cells = (*spread(swapped), lost[:, 0].std(ddof=1), lost.mean(axis=1).std(ddof=1),
                     loss_size(lost.mean(axis=1)))  # fmt: skip
            print(f"| {first} - {second} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")


def world_spread() -> None:
    """The same for the simulated worlds, to compare with real encoders."""
    print(f"| world | {SPREAD}")
    for name, world in WORLDS.items():
        shop = Shop(world, 4000, np.random.default_rng(0))
        behind = shop.backgrounds(100)
        one, other = shop.encoder(), shop.encoder()
        lost = one.clean() - other.clean()
        cells = (*spread(one.swapped(behind) - other.swapped(behind)), lost[:, 0].std(), lost.mean(axis=1).std(),
                 loss_size(lost.mean(axis=1)))  # fmt: skip
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    print()


def _shares(counts: Any, trials: int) -> str:
    return " | ".join(f"{count / trials:.3f}" for count in counts)


def _error(share: float, trials: int) -> str:
    return f"{np.sqrt(share * (1 - share) / trials):.3f}"


TABLES = {"bounds": bounds, "retrainings": retrainings, "clean": clean, "power": power, "spending": spending}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    if asked.tables[:1] == ["spread"]:
        world_spread()
        spreads(asked.tables[1:])
    else:
        for table in asked.tables or TABLES:
            print(f"### {table}\n")
            TABLES[table](asked.trials)
