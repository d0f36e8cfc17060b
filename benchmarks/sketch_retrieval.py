"""Which changes help drawings to find drawings of their category by other hands:
`python benchmarks/sketch_retrieval.py TRAIN TEST OUT [NAME...] [--epochs 12] [--drawings N]`.

TRAIN and TEST are sources of drawings as for `nitamono sketch`, or archives of Omniglot's strokes
(https://github.com/brendenlake/omniglot, python/strokes_*.zip), whose characters become categories. Drawings of TRAIN
that look like one of TEST are left out. Trains `sketch-rnn` on the others, once for each row of `STUDY`, each with the
settings of the rows above it too, and evaluates it on TEST beside 28 x 28 pictures. Encoders are written to OUT/NAME,
and figures to OUT/NAME.json; a run that was stopped goes on from its last epoch. Prints a Markdown table: precision@10
with a 95 % interval over categories, the shares of drawings that find themselves first in strokes of another order or
direction, and the KL in nats per drawing.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DrawingError
from training.recipes import load_recipe
from training.sketches.encoder import SketchEncoder, load_sketch_encoder
from training.sketches.evaluation import evaluate_sketches
from training.sketches.fit import train_on_drawings
from training.sketches.judging import pixel_vectors
from training.sketches.reading import SourceDrawing, read_drawings

BASE = [
    "drawings={longest: 32, epsilon: 4.0, scale: 0.25, drop: 0.2, rotate: 15}", "batch_size=128", "ema=0.99",
    "model={latent_dim: 32, encoder_hidden: 96, decoder_hidden: 64, mixtures: 5, kl_weight: 0.2, kl_min: 0.4, "
    "eta_min: 0.1, decay: 0.999}",
    "optimiser={lr: 4.0e-3, final_lr: 0.05, warmup_steps: 40, weight_decay: 0, clip: 1.0}",
    "objective={contrastive: {weight: 1.0, temperature: 0.1}}", "pictures_every=1000",
]  # fmt: skip
STUDY = {
    "plain": [],
    "strokes": ["drawings.order=0.7", "drawings.reverse=0.4"],
    "places": ["model.places=true", "model.pooling=mean"],
    "form": ["drawings.shear=15", "drawings.warp=0.08"],
    "hidden": ["model.input_dropout=0.3"],
    "neighbours": ["objective.mined={start: 4, every: 2, neighbours: 5, share: 0.5}"],
}
ALIKE = 0.97  # cosine of two pictures of one drawing, whose points differ by simplification


def read(source: Path) -> list[SourceDrawing]:
    return list(read_omniglot(source)) if source.suffix == ".zip" else read_drawings(source)[0]


def read_omniglot(archive: Path) -> Iterator[SourceDrawing]:
    """Drawings of `.../ALPHABET/CHARACTER/NAME.txt`: lines x,y,time, with BREAK after each stroke; y points up."""
    with zipfile.ZipFile(archive) as opened:
        for name in sorted(opened.namelist()):
            if name.endswith(".txt") and not name.startswith("__"):
                *_, alphabet, character, _ = name.split("/")
                parts = opened.read(name).decode().removeprefix("START\n").split("BREAK")
                strokes = [_points(part) for part in parts if part.strip()]
                yield SourceDrawing(Path(name).stem, strokes, {"category": f"{alphabet}/{character}"}, name)


def _points(lines: str) -> NDArray[np.float64]:
    return np.loadtxt(io.StringIO(lines), delimiter=",", ndmin=2)[:, :2] * [1.0, -1.0]


def apart(drawings: Sequence[SourceDrawing], others: Sequence[SourceDrawing]) -> list[SourceDrawing]:
    """The drawings that are neither like one of the others nor the nearest to it."""
    own, theirs = (pixel_vectors([each.strokes for each in side]) for side in (drawings, others))
    is_apart = np.ones(len(own), dtype=bool)
    for first in range(0, len(theirs), 500):
        scores = theirs[first : first + 500] @ own.T
        is_apart &= (scores < ALIKE).all(axis=0)
        is_apart[scores.argmax(axis=1)] = False
    return [each for each, kept in zip(drawings, is_apart, strict=True) if kept]


def taken(encoder: SketchEncoder, drawings: Sequence[SourceDrawing]) -> list[SourceDrawing]:
    """The drawings that the encoder can take."""
    found = []
    for each in drawings:
        try:
            encoder.preprocessing.simplified(each.strokes)
        except DrawingError as exc:
            sys.stderr.write(f"{each.where}: {exc}\n")
        else:
            found.append(each)
    return found


def figures(encoder: SketchEncoder, test: Sequence[SourceDrawing]) -> dict[str, Any]:
    report = evaluate_sketches(encoder, taken(encoder, test), samples=200)
    return {**report, "kl": encoder.card["figures"]["validation"]["kl"], "run": encoder.card["run"]}


def table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| | precision@10 | pixels | another order | another direction | KL |\n|---|---|---|---|---|---|"
    for name, row in found.items():
        own, pixels, ink = row["retrieval"]["encoder"], row["retrieval"]["pixels"], row["same_ink"]
        yield (
            f"| {name} | {own['precision']:.3f} [{own['low']:.3f} {own['high']:.3f}] | {pixels['precision']:.3f} | "
            f"{ink['order']:.2f} | {ink['direction']:.2f} | {row['kl']:.1f} |"
        )


def main(train: Path, test: Path, out: Path, names: Sequence[str], epochs: int, count: int | None) -> None:
    judged = read(test)
    drawings = apart(read(train), judged)
    chosen = np.sort(np.random.default_rng(0).permutation(len(drawings))[:count])
    learnt, settings = [drawings[place] for place in chosen], [*BASE, f"epochs={epochs}"]
    found: dict[str, dict[str, Any]] = {}
    for name, added in STUDY.items():
        settings += added
        if names and name not in names:
            continue
        path = train_on_drawings(load_recipe("sketch-rnn-small", settings), learnt, out / name, resume=True)
        found[name] = figures(load_sketch_encoder(path), judged)
        (out / f"{name}.json").write_text(json.dumps(found[name], indent=1))
    print("\n".join(table(found)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", choices=[[], *STUDY])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--drawings", type=int)
    given = parser.parse_args()
    main(given.train, given.test, given.out, given.names, given.epochs, given.drawings)
