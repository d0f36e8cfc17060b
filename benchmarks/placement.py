"""Recall by scale and place of the item: `python benchmarks/placement.py [REF...] --studio shop --data SOURCE`.

The placement test of `nitamono compare` without the other measures. Prints a Markdown table for each set; `--json FILE`
writes all figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import process_time

from indexer.compare.results import describe
from indexer.evaluate.images import embed_pictures
from indexer.measures.robustness import LabelledVectors
from indexer.swaps.placement import GROUNDS, KINDS, SCALES, PlacementTest, place_set, search_placed
from indexer.swaps.sources import photo_set, studio_set
from indexer.swaps.swap_set import BANK_SEED, SwapSet
from training.console import to_json
from training.data.sources import read_images
from training.data.studio import check_stock
from training.encoder import load_encoder

COLUMNS = (
    "frame background",
    "encoder",
    "middle",
    "anywhere",
    "retention",
    *(f"scale {scale:g}" for scale in SCALES),
    *KINDS,
)


def measure(made: SwapSet, refs: list[str], seed: int) -> dict[str, PlacementTest]:
    queries = place_set(made, seed)
    if queries is None:
        raise SystemExit(f"{made.name}: contains no cut-outs")
    found: dict[str, PlacementTest] = {}
    for ref in refs:
        encoder = load_encoder(ref)
        embed = partial(embed_pictures, encoder)
        gallery = LabelledVectors(embed(made.gallery), made.products)
        began = process_time()
        test = search_placed(queries, embed, gallery, encoder.metric, base=next(iter(found.values()), None), seed=seed)
        if test is not None:
            found[ref] = test
        print(f"{ref}: {process_time() - began:.1f} core-seconds")
    return found


def sets(options: argparse.Namespace) -> Iterator[tuple[str, SwapSet]]:
    items, per_item, seed = options.items, options.per_item, options.seed
    for stock in options.studio or ([] if options.data else ["shop"]):
        check_stock(stock)
        yield stock, studio_set(stock, items, per_item=per_item, seed=BANK_SEED + seed, factors=False)
    for source in options.data or []:
        images, _ = read_images(source)
        yield source.stem, photo_set(source.stem, images, per_item=per_item, limit=items, seed=seed)


def table(found: dict[str, PlacementTest]) -> str:
    lines = [" | ".join(["", *COLUMNS, ""]).strip(), "|---" * len(COLUMNS) + "|"]
    for ground in GROUNDS:
        for ref, test in found.items():
            figures = test.figures[ground]["recall@1"]
            cells = [*figures[:3], *figures.by_scale.values(), *figures.by_place.values()]
            lines.append(" | ".join(["", ground, ref, *(cell.to_text() for cell in cells), ""]).strip())
    for ref, test in found.items():
        for name, paired in test.versus.items():
            lines.append(f"{ref}, {name}: {paired.difference.to_text()}, p {paired.p:.4f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("refs", nargs="*", metavar="REF", default=["default", "hog", "pixels"])
    parser.add_argument("--studio", action="append", help="shop or solids; repeatable.")
    parser.add_argument("--data", action="append", type=Path, help="SOURCE of photos; repeatable.")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--per-item", type=int, default=5, help="Backgrounds of each item.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    document = {}
    for name, made in sets(options):
        found = measure(made, options.refs, options.seed)
        print(f"\n{describe(made)}\n\n{table(found)}\n", flush=True)
        document[name] = {ref: test.to_json() for ref, test in found.items()}
    if options.json is not None:
        options.json.write_text(to_json(document) + "\n")


if __name__ == "__main__":
    main()
