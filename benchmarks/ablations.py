"""Effect of each setting of a recipe: `python benchmarks/ablations.py --data SOURCE --out DIR ...`.

Trains `VARIANTS` of one recipe with several seeds and equal budgets (the same epochs, or `--max-minutes`) into
OUT/VARIANT/seed-N. Finished runs are skipped and interrupted ones are resumed, so the program can be stopped at any
time. Then all finished runs are evaluated:

    --category NAME=GALLERY,QUERIES   precision@10 and MAP by category
    --items NAME=GALLERY,QUERIES      recall@1 by item_id
    --swap SOURCE, --solids N         recall@1 of clean and of swapped queries, for photos with masks or for drawn items

Prints a Markdown table and writes OUT/ablations.json: the mean of each figure over seeds, and its difference to the
baseline on the same seeds and items. The 95 % interval of a difference covers seeds and items as crossed random effects
(`indexer.measures.crossed`). With a single seed it covers items only, and does not generalise to another run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from indexer.compare.comparison import measure_swaps
from indexer.evaluate.retrieval import evaluate_retrieval
from indexer.measures.crossed import mean_squares
from indexer.swaps.sources import photo_set, studio_set
from training.console import to_json
from training.data.sources import SourceImage, read_all, read_images
from training.encoder import load_encoder
from training.loop import train
from training.onnx.export import add_onnx
from training.recipes import Recipe, load_recipe

BASE = "baseline"
VARIANTS: dict[str, list[str]] = {
    BASE: [],
    "teacher": ["objective.teacher={weight: 30, decay: 0.99}"],
    "prototypes": ["objective.prototypes={weight: 3000, count: 64, temperature: 0.1, epsilon: 0.05}"],
    "prototypes-alone": ["objective.prototypes={weight: 10000, count: 64}", "objective.contrastive=null"],
    "mined": ["objective.mined={start: 10, every: 5, neighbours: 5, share: 0.5}"],
    "small-views": ["objective.small_views={count: 2, least: 0.3, most: 0.6, size: 32}"],
    "hard-backgrounds": ["backgrounds.hard={candidates: 4, share: 0.5}"],
    "size-96": ["preprocessing.size=96"],
    "progressive-96": ["preprocessing.size=96", "progressive={size: 64, after: 0.67}"],
}
Numbers = NDArray[np.float64]
Figures = dict[tuple[str, str], dict[str, float]]  # by test and metric, the value of each item


class Run(NamedTuple):
    """A variant with a seed, and its output directory."""

    variant: str
    seed: int
    recipe: Recipe
    out: Path

    @property
    def is_finished(self) -> bool:
        return (self.out / "encoder.json").exists()

    def check(self) -> None:
        """Exit if another recipe was trained here."""
        recorded = Recipe.model_validate(json.loads((self.out / "run.json").read_text())["recipe"])
        if recorded.model_dump(mode="json") != self.recipe.model_dump(mode="json"):
            raise SystemExit(f"{self.out} was trained with other settings; choose another --out")


class Difference(NamedTuple):
    """A mean difference and its 95 % interval."""

    value: float
    low: float
    high: float


def plan(asked: argparse.Namespace) -> list[Run]:
    """The runs, ordered by seed, so that all variants of the first seed finish early."""
    names = list(dict.fromkeys([BASE, *(asked.only or VARIANTS)]))
    shared = [*asked.set, *([f"backgrounds.folder={json.dumps(str(asked.backgrounds))}"] if asked.backgrounds else [])]
    shared += [f"epochs={asked.epochs}"] if asked.epochs else []
    shared += [f"max_minutes={asked.max_minutes}"] if asked.max_minutes else []
    return [
        Run(
            name, seed, load_recipe(asked.recipe, [*shared, *VARIANTS[name], f"seed={seed}"]),
            asked.out / name / f"seed-{seed}",
        )
        for seed in asked.seeds
        for name in names
    ]  # fmt: skip


def train_all(runs: Sequence[Run], data: Sequence[Path], device: str, precision: str) -> None:
    images: list[SourceImage] | None = None
    for run in runs:
        if run.is_finished:
            continue
        images = read_all(data)[0] if images is None else images
        print(f"{run.out}: {run.recipe.epochs} epochs, at most {run.recipe.max_minutes or 'any'} minutes", flush=True)
        add_onnx(train(run.recipe, images, run.out, resume=True, device=device, precision=precision))


def measure(runs: Sequence[Run], asked: argparse.Namespace) -> dict[Path, Figures]:
    """The figures of every run for each item."""
    found: dict[Path, Figures] = {run.out: {} for run in runs}
    for relevance, tests, metrics in (
        ("category", asked.category, {"precision@10": "P@10", "map": "MAP"}),
        ("item_id", asked.items, {"hit@1": "recall@1"}),
    ):
        for name, gallery, queries in tests:
            sides = [read_images(source)[0] for source in (gallery, queries)]
            refs = [str(run.out) for run in runs]
            evaluation = evaluate_retrieval(sides[0], sides[1], relevance, refs, baselines=False)
            items = [image.item_id for image in evaluation.queries]
            for ref, result in evaluation.encoders.items():
                for metric, title in metrics.items():
                    found[Path(ref)][name, title] = by_item(items, result.per_query[metric])
    for made in swap_sets(asked):
        for run in runs:
            swap = measure_swaps(load_encoder(str(run.out)), made).swap
            for title, values in (("clean recall@1", swap.clean), ("swapped recall@1", swap.swapped)):
                found[run.out][made.name, title] = dict(
                    zip(swap.items, values["recall@1"].tolist(), strict=True)
                )  # fmt: skip
    return found


def swap_sets(asked: argparse.Namespace) -> Iterator[Any]:
    for source in asked.swap:
        yield photo_set(source.stem, read_images(source)[0], backgrounds=asked.swap_backgrounds, limit=asked.limit)
    if asked.solids:
        yield studio_set("solids", asked.solids, backgrounds=asked.swap_backgrounds, factors=False)


def by_item(items: Sequence[str], values: Numbers) -> dict[str, float]:
    """The mean over the answerable queries of each item."""
    known: dict[str, list[float]] = {}
    for item, value in zip(items, values.tolist(), strict=True):
        if not np.isnan(value):
            known.setdefault(item, []).append(value)
    return {item: float(np.mean(some)) for item, some in known.items()}


def difference(values: Numbers, base: Numbers) -> Difference:
    """Mean of values minus base, both `(seeds, items)`, with a 95 % interval over seeds and items."""
    gained = values - base
    mean, seeds, items = float(gained.mean()), *gained.shape
    if seeds > 1:
        variance, freedom = mean_squares(gained.T).of_mean()
    else:
        variance, freedom = float(gained.var(ddof=1)) / items, float(items - 1)
    half = float(t.ppf(0.975, freedom)) * variance**0.5
    return Difference(mean, mean - half, mean + half)


def summarise(runs: Sequence[Run], found: dict[Path, Figures]) -> dict[str, Any]:
    """By variant: seeds, minutes, and each figure with its difference to the baseline."""
    of: dict[str, dict[int, Run]] = {}
    for run in runs:
        of.setdefault(run.variant, {})[run.seed] = run
    document: dict[str, Any] = {}
    for variant, by_seed in of.items():
        shared = [seed for seed in by_seed if seed in of.get(BASE, {})]
        figures = {}
        for key in found[next(iter(by_seed.values())).out]:
            own = [np.mean(list(found[run.out][key].values())) for run in by_seed.values()]
            figure: dict[str, Any] = {"mean": float(np.mean(own)), "seeds": [float(value) for value in own]}
            if variant != BASE and shared:
                sides = [[found[side[seed].out][key] for seed in shared] for side in (by_seed, of[BASE])]
                items = sorted(set.intersection(*(set(values) for side in sides for values in side)))
                rows = [np.array([[values[item] for item in items] for values in side]) for side in sides]
                figure["difference"] = difference(*rows)._asdict()
            figures[": ".join(key)] = figure
        cards = [json.loads((run.out / "card.json").read_text())["run"] for run in by_seed.values()]
        document[variant] = {
            "settings": VARIANTS[variant],
            "seeds": list(by_seed),
            "minutes": float(np.mean([card["fit_seconds"] for card in cards])) / 60,
            "epochs": [card["epochs"] for card in cards],
            "figures": figures,
        }
    return document


def table(document: dict[str, Any]) -> str:
    names = list(next(iter(document.values()))["figures"])
    lines = [f"| variant | seeds | minutes | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    for variant, row in document.items():
        cells = [_cell(row["figures"][name]) for name in names]
        lines.append(f"| {variant} | {len(row['seeds'])} | {row['minutes']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any]) -> str:
    text = f"{figure['mean']:.3f}"
    if "difference" in figure:
        gained = figure["difference"]
        text += f" ({gained['value']:+.3f} [{gained['low']:+.3f} {gained['high']:+.3f}])"
    return text


def _named_pair(text: str) -> tuple[str, Path, Path]:
    name, equals, sources = text.partition("=")
    gallery, comma, queries = sources.partition(",")
    if not (equals and comma):
        raise argparse.ArgumentTypeError(f"expected NAME=GALLERY,QUERIES, not {text!r}")
    return name, Path(gallery), Path(queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="robust-vae-small")
    parser.add_argument("--data", type=Path, action="append", required=True, help="SOURCE to train on; repeatable.")
    parser.add_argument("--backgrounds", type=Path, help="Folder of backgrounds for training.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Setting of every variant.")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(VARIANTS),
        help="Variants to train in addition to the baseline; all by default.",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="Epochs of every variant; by default those of the recipe.")
    parser.add_argument("--max-minutes", type=float, help="Maximum minutes of fitting for each run.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="32")
    parser.add_argument("--category", type=_named_pair, action="append", default=[], metavar="NAME=GALLERY,QUERIES")
    parser.add_argument("--items", type=_named_pair, action="append", default=[], metavar="NAME=GALLERY,QUERIES")
    parser.add_argument("--swap", type=Path, action="append", default=[], metavar="SOURCE")
    parser.add_argument("--swap-backgrounds", type=Path, help="Folder of backgrounds that no variant was trained on.")
    parser.add_argument("--limit", type=int, default=500, help="Maximum number of items of each --swap.")
    parser.add_argument(
        "--solids", type=int, default=0, metavar="N", help="Number of drawn items of a swap test; 0 to skip it."
    )
    parser.add_argument("--no-training", action="store_true", help="Evaluate finished runs without training.")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    for names in (
        *([name for name, _, _ in tests] for tests in (asked.category, asked.items)),
        [s.stem for s in asked.swap],
    ):
        if len(set(names)) < len(names):
            parser.error(f"names of tests must be unique, not {', '.join(names)}")
    runs = plan(asked)
    if not asked.no_training:
        train_all(runs, asked.data, asked.device, asked.precision)
    runs = [run for run in runs if run.is_finished]
    for run in runs:
        run.check()
    if not runs:
        parser.error("no run is finished yet; omit --no-training")
    document = summarise(runs, measure(runs, asked))
    (asked.out / "ablations.json").write_text(to_json(document) + "\n")
    print(table(document))


if __name__ == "__main__":
    main()
