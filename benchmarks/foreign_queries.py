"""Which score tells foreign queries from the catalogue's own kind: `python benchmarks/foreign_queries.py`.

    python benchmarks/foreign_queries.py GALLERY KNOWN FOREIGN --encoder default --vae vae-clothing-64

GALLERY and KNOWN are SOURCEs without common photos; FOREIGN has one folder for each foreign set, as
`benchmarks/foreign_sets.py` writes them. Prints the AUROC of each score and set with 95 % bootstrap intervals over
photos, and the share of each set that a search of the product would flag, known photos in other forms among them: grey,
cut to a square, or small and compressed. `--vae` adds the reconstruction error and the bound of a VAE, `--density` the
likelihood of another generative model of pixels. `--cache DIR` keeps what was computed.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from indexer.typicality.fit import fit_typicality
from indexer.typicality.gaussian import fit_gaussian
from indexer.typicality.typicality import FLAGGED, NEAREST
from indexer.vectors.engines import exact_index
from indexer.vectors.neighbours import nearest_others
from indexer.vectors.rerank import distances_of
from training.data.decode import decode_image
from training.data.sources import read_images
from training.embedder import Embedder, load_embedder
from training.encoder import load_encoder
from training.fitting.density import DensitySettings
from training.latent_flow import LatentFlow, LatentFlowConfig

Array = NDArray[np.floating]
Scores = dict[str, dict[str, Array]]  # by score, then by set; higher is more foreign
BATCH = 32
FLOW_AXES = 64  # principal axes of the flow that does not describe all
REPLICATES = 1000
POOLED = 100  # pictures of each set in the pool, so that no set dominates
OF_PIXELS = 50  # pictures of each foreign set for scores of pixels, which take long
APART = ("drawn-clothes",)  # clothes themselves: reported, and left out of the pool
CONTROLS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "known, grey": lambda image: image.convert("L").convert("RGB"),
    "known, square": lambda image: ImageOps.fit(image, (min(image.size),) * 2),
    "known, small JPEG": lambda image: compressed(image),
}


def compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.resize((image.width // 3, image.height // 3)).save(buffer, "JPEG", quality=30)
    return Image.open(buffer).resize(image.size)


def files(source: Path) -> list[Path]:
    return [Path(image.path) for image in read_images(source)[0]]


def pixels(
    paths: list[Path], embedder: Embedder, change: Callable[[Image.Image], Image.Image] | None
) -> Iterator[Array]:
    """Prepared batches `(B, C, S, S)` uint8."""
    preprocessing = embedder.described.preprocessing
    for start in range(0, len(paths), BATCH):
        images = [
            decode_image(path.read_bytes(), at_least=preprocessing.size).pixels for path in paths[start : start + BATCH]
        ]
        if change is not None:
            images = [np.asarray(change(Image.fromarray(image)), np.uint8) for image in images]
        yield np.stack([preprocessing.apply(image) for image in images])


def embedded(sets: dict[str, list[Path]], ref: str, cache: Path | None) -> dict[str, Array]:
    """Vectors of each set and of the controls, by the product's own embedder."""
    path = None if cache is None else cache / f"vectors-{Path(ref).name}.npz"
    found = dict(np.load(path)) if path is not None and path.is_file() else {}
    embedder = load_embedder(ref)
    wanted = [(name, paths, None) for name, paths in sets.items()]
    wanted += [(name, sets["known"], change) for name, change in CONTROLS.items()]  # type: ignore[list-item]
    for name, paths, change in wanted:
        if name not in found:
            found[name] = np.concatenate([embedder.embed(batch) for batch in pixels(paths, embedder, change)])
            if path is not None:
                np.savez(path, **found)
    return {name: found[name] for name, _, _ in wanted}


def vector_scores(vectors: dict[str, Array], metric: str) -> tuple[Scores, dict[str, Array]]:
    """Scores of search vectors, and the product's percentiles."""
    gallery = vectors["gallery"]
    index = exact_index(gallery, metric)
    own = distances_of(nearest_others(index, gallery, NEAREST).scores, metric)
    began = time.process_time()
    ids = np.stack([np.arange(len(gallery))] * 2, axis=1)
    product = fit_typicality(index, ids, gallery, metric)
    assert product is not None
    print(f"product fitted in {time.process_time() - began:.1f} core-seconds")
    gaussian = fit_gaussian(gallery)
    flows = {f"flow, {axes} axes": fitted_flow(gallery, axes) for axes in (FLOW_AXES, gallery.shape[1])}
    scores: Scores = {}
    percentiles = {}
    for name, queries in vectors.items():
        near = index.search(queries, NEAREST)
        distances = distances_of(near.scores, metric)
        mean = distances.mean(axis=1)
        found = {
            "nearest item": distances[:, 0],
            f"mean of {NEAREST} nearest": mean,
            f"{NEAREST}th nearest / its own": distances[:, -1] / own[near.positions, -1].mean(axis=1),
            "Mahalanobis": gaussian.squared_distances(queries),
            **{flow: -density(torch.from_numpy(queries)) for flow, density in flows.items()},
            f"product: Mahalanobis + mean of {NEAREST}": product.scores(queries, mean),
        }
        percentiles[name] = product.percentiles(product.scores(queries, mean))
        for score, values in found.items():
            scores.setdefault(score, {})[name] = values
    return scores, percentiles


def fitted_flow(gallery: Array, axes: int) -> Callable[[torch.Tensor], Array]:
    """The log-density of a flow that is fitted to four of five vectors; the fifth ones choose its epoch."""
    held_out = np.arange(len(gallery)) % 5 == 0
    torch.manual_seed(0)
    flow = LatentFlow(LatentFlowConfig(vector_dim=gallery.shape[1], dim=axes))
    train, others = (torch.from_numpy(gallery[part]).float() for part in (~held_out, held_out))
    flow.fit(train, others, DensitySettings(epochs=20, lr=1e-3))

    def density(queries: torch.Tensor) -> Array:
        with torch.no_grad():
            return flow.log_prob(queries.float()).double().numpy()

    return density


def pixel_scores(sets: dict[str, list[Path]], ref: str, is_vae: bool, cache: Path | None) -> Scores:
    """Reconstruction error and bound of a VAE, or the likelihood of another model, of `OF_PIXELS` of each set."""
    path = None if cache is None else cache / f"pixels-{Path(ref).name}.npz"
    stored = dict(np.load(path)) if path is not None and path.is_file() else {}
    encoder, embedder, scores = load_encoder(ref), load_embedder(ref), Scores()
    model, kind = encoder.model, encoder.family
    for name, found in sets.items():
        if name == "gallery":
            continue
        paths = found if name == "known" else found[:OF_PIXELS]
        if f"{name}/likelihood" not in stored:
            errors, nats = [], []
            for batch in pixels(paths, embedder, None):
                x = torch.from_numpy(batch).float() / 255.0
                with torch.no_grad():
                    nats.append(model.log_likelihood(x).nats.double().numpy())  # type: ignore[operator, union-attr]
                    if is_vae:
                        error = (model.reconstruct(x) - x).square()  # type: ignore[operator, union-attr]
                        errors.append(error.flatten(1).mean(dim=1).double().numpy())
            stored[f"{name}/likelihood"] = np.concatenate(nats)
            if is_vae:
                stored[f"{name}/error"] = np.concatenate(errors)
            if path is not None:
                np.savez(path, **stored)
        scores.setdefault(f"pixels: likelihood of {kind}", {})[name] = -stored[f"{name}/likelihood"]
        if is_vae:
            scores.setdefault(f"pixels: reconstruction error of {kind}", {})[name] = stored[f"{name}/error"]
    return scores


def auroc(known: Array, foreign: Array) -> float:
    """Probability that a foreign picture scores above a known one; ties count half."""
    ordered = np.sort(known)
    below, upto = (np.searchsorted(ordered, foreign, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(known)))


def interval(known: Array, foreign: Array) -> str:
    """AUROC and its 95 % bootstrap interval over pictures."""
    rng = np.random.default_rng(0)
    drawn = [auroc(rng.choice(known, len(known)), rng.choice(foreign, len(foreign))) for _ in range(REPLICATES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{auroc(known, foreign):.3f} [{low:.3f} {high:.3f}]".replace("0.", ".")


def table(scores: Scores) -> str:
    """A row for the pool of all sets and for each set, a column for each score."""
    foreign = [name for name in next(iter(scores.values())) if name not in ("gallery", "known", *CONTROLS)]
    rows = {"all but drawn clothes": [name for name in foreign if name not in APART]} | {
        name: [name] for name in foreign
    }
    lines = ["| foreign set | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for row, members in rows.items():
        at_most = POOLED if len(members) > 1 else None
        pools = {
            score: np.concatenate([values[name][:at_most] for name in members]) for score, values in scores.items()
        }
        cells = [interval(scores[score]["known"], pool) for score, pool in pools.items()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def flagged(percentiles: dict[str, Array]) -> str:
    from scipy.stats import binomtest

    lines = ["| set | pictures | median percentile | flagged | 95 % |", "|---|---|---|---|---|"]
    for name, found in percentiles.items():
        if name != "gallery":
            hits = int((found < FLAGGED).sum())
            low, high = binomtest(hits, len(found)).proportion_ci()
            shares = f"{hits / len(found):.1%} | {low:.1%} to {high:.1%}"
            lines.append(f"| {name} | {len(found)} | {np.median(found):.1f} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gallery", type=Path)
    parser.add_argument("known", type=Path)
    parser.add_argument("foreign", type=Path)
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--vae", help="encoder with a decoder")
    parser.add_argument("--density", help="encoder whose family has a likelihood of pixels")
    parser.add_argument("--cache", type=Path)
    asked = parser.parse_args()
    sets = {"gallery": files(asked.gallery), "known": files(asked.known)}
    sets |= {folder.name: files(folder) for folder in sorted(asked.foreign.iterdir())}
    vectors = embedded(sets, asked.encoder, asked.cache)
    scores, percentiles = vector_scores(vectors, load_embedder(asked.encoder).described.metric)
    print(f"\n{asked.encoder}, AUROC\n\n{table(scores)}\n\n{flagged(percentiles)}\n", flush=True)
    of_pixels: Scores = {}
    for ref, is_vae in ((asked.vae, True), (asked.density, False)):
        if ref is not None:
            of_pixels |= pixel_scores(sets, ref, is_vae, asked.cache)
    if of_pixels:
        print(table(of_pixels))


if __name__ == "__main__":
    main()
