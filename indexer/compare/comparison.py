"""Compare encoders by their robustness to backgrounds; `indexer.measures.robustness` defines the measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from indexer.compare.results import Comparison, EncoderComparison
from indexer.errors import InvalidRequestError
from indexer.evaluate.images import embed_pictures, prepared
from indexer.measures.disentanglement import Disentanglement, Probe, disentanglement, linear_probe
from indexer.measures.metrics import Bootstrap, Interval, rank, score_blocks
from indexer.measures.robustness import (
    MAP_AT_R,
    BackgroundGap,
    LabelledVectors,
    SwapTest,
    attention_score,
    background_gap,
    displacement,
    lure_rate,
    swap_test,
)
from indexer.measures.significance import Paired, holm, paired_test
from indexer.measures.variance import variance_shares
from indexer.swaps.placement import PlacedItems, PlacementTest, place_set, search_placed
from indexer.swaps.swap_set import Pixels, SwapSet
from training.attribution import occlusion
from training.encoder import Encoder, load_encoder

BASELINES = ("pixels", "hog")
LURE_K = 10
SHOWN = 5  # results kept for each query
ATTENDED = 24  # items whose attention score is measured, with 65 forward passes each
PROBED = 100  # items that the item probe distinguishes
RECONSTRUCTED = 4  # items whose reconstructions are kept
MOST_UNITS = 1024  # largest dim for which disentanglement is measured; excludes raw pixels
HELD_OUT = 0.4  # share of the backgrounds that the item probe is tested on


def compare_encoders(
    made: SwapSet,
    refs: Sequence[str],
    *,
    baselines: bool = False,
    placement: bool = True,
    replicates: int = 1000,
    seed: int = 0,
    started: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda count: None,
) -> Comparison:
    """Measure encoders on a swap set.

    Args:
        placement: also measure recall by scale and place, with 20 more queries for each of up to 200 items.
        started, advance: called with the number of encoders, and with 1 after each encoder.

    Raises:
        InvalidRequestError: no encoder is given, or queries of the set are in its gallery.
        EncoderError: an encoder cannot be loaded.
    """
    names = list(dict.fromkeys([*refs, *(BASELINES if baselines else ())]))
    if not names:
        raise InvalidRequestError("encoder", "no encoder is given; give one or more with --encoder REF")
    leaks = made.leaks()
    if leaks["clean_queries_in_gallery"] or leaks["swapped_queries_in_gallery"]:
        raise InvalidRequestError("data", f"{made.name}: queries are in the gallery ({leaks}); remove duplicate photos")
    encoders = {name: load_encoder(name) for name in names}
    started(len(encoders))
    placed = place_set(made, seed) if placement else None
    found: dict[str, EncoderComparison] = {}
    for name, encoder in encoders.items():
        base = next(iter(found.values()), None)
        found[name] = _Measurement(encoder, made, replicates, seed).compare(name, base, placed)
        advance(1)
    ordered = sorted(found.values(), key=lambda each: -each.swap.figures[MAP_AT_R].swapped.value)
    return Comparison(made, seed, leaks, {each.name: each for each in ordered}, names[0])


class SwapMeasures(NamedTuple):
    """The main swap measures; see `EncoderComparison`."""

    swap: SwapTest
    shares: dict[str, Interval]
    displacement: Interval


def measure_swaps(encoder: Encoder, made: SwapSet, *, replicates: int = 1000, seed: int = 0) -> SwapMeasures:
    """The swap test, variance shares and displacement of one encoder on a set."""
    measurement = _Measurement(encoder, made, replicates, seed)
    moved = displacement(measurement.swapped, made.products)
    return SwapMeasures(measurement.swap_test(), measurement.shares(), measurement.by_item.interval(moved.ratio))


class _Measurement:
    """The measures of one encoder on one set."""

    def __init__(self, encoder: Encoder, made: SwapSet, replicates: int, seed: int) -> None:
        self.encoder = encoder
        self.made = made
        self.replicates = replicates
        self.seed = seed
        self.by_item = Bootstrap(made.items, replicates=replicates, seed=seed)
        self.gallery, self.clean, self.swapped, self.lures = (
            embed_pictures(encoder, pictures) for pictures in (made.gallery, made.clean, made.swapped, made.lures)
        )

    def compare(
        self, name: str, base: EncoderComparison | None, placed: PlacedItems | None = None
    ) -> EncoderComparison:
        began = perf_counter()
        encoder, made = self.encoder, self.made
        swap = self.swap_test()
        moved, attended = displacement(self.swapped, made.products), self._attention()
        place = None if placed is None else self._placement(placed, None if base is None else base.placement)
        return EncoderComparison(
            name=name,
            encoder_id=encoder.encoder_id,
            family=encoder.family,
            dim=encoder.dim,
            metric=encoder.metric,
            swap=swap,
            gap=self._gap(),
            shares=self.shares(),
            known_shares=self._known_shares(),
            probes=self._probes(),
            lure=lure_rate(
                self.swapped, self.lures, made.lure_backgrounds, encoder.metric, k=LURE_K, bootstrap=self.by_item
            ),
            displacement=self.by_item.interval(moved.ratio),
            overtaken=self.by_item.share(moved.overtaken),
            attention=self.by_item.interval(attended),
            disentanglement=self._disentanglement(),
            versus={} if base is None else self._versus(swap, moved.ratio, attended, base),
            displacements=moved.ratio,
            attentions=attended,
            vectors=self.swapped,
            top=self._top(),
            reconstructions=self._reconstructions(),
            seconds=perf_counter() - began,
            placement=place,
        )

    def swap_test(self) -> SwapTest:
        made, (_, per_item, dim) = self.made, self.swapped.shape
        return swap_test(
            LabelledVectors(self.gallery, made.products),
            LabelledVectors(self.clean, made.products),
            LabelledVectors(
                self.swapped.reshape(-1, dim), [product for product in made.products for _ in range(per_item)]
            ),
            self.encoder.metric,
            replicates=self.replicates,
            seed=self.seed,
        )

    def shares(self) -> dict[str, Interval]:
        return variance_shares(self.swapped, ("item", "background"), replicates=self.replicates, seed=self.seed)

    def _placement(self, placed: PlacedItems, base: PlacementTest | None) -> PlacementTest | None:
        gallery, embed = LabelledVectors(self.gallery, self.made.products), partial(embed_pictures, self.encoder)
        return search_placed(
            placed, embed, gallery, self.encoder.metric,
            base=base, replicates=self.replicates, seed=self.seed,
        )  # fmt: skip

    def _gap(self) -> BackgroundGap | None:
        parts = self.made.by_category
        if parts is None:
            return None
        labels = [str(self.made.categories[row]) for row in parts.rows]
        same, random = (
            (embed_pictures(self.encoder, part.pictures), part.donors) for part in (parts.same, parts.random)
        )
        items = [self.made.items[row] for row in parts.rows]
        bootstrap = Bootstrap(items, replicates=self.replicates, seed=self.seed)
        return background_gap(self.gallery[parts.rows], same, random, labels, self.encoder.metric, bootstrap=bootstrap)

    def _known_shares(self) -> dict[str, Interval]:
        known = self.made.factorial
        if known is None:
            return {}
        vectors = embed_pictures(self.encoder, known.pictures)
        return variance_shares(vectors, known.names, replicates=self.replicates, seed=self.seed)

    def _probes(self) -> dict[str, Probe]:
        count, per_item, dim = self.swapped.shape
        z = self.swapped.reshape(-1, dim)
        items, backgrounds = np.repeat(self.made.items, per_item), np.tile(np.arange(per_item), count)
        probes = {"background": linear_probe(z, backgrounds.astype(str), items, seed=self.seed)}
        categories = np.array([category or "" for category in self.made.categories])
        known = np.repeat(categories != "", per_item)
        if len(set(categories[categories != ""])) > 1:
            labels = np.repeat(categories, per_item)
            probes["category"] = linear_probe(z[known], labels[known], items[known], seed=self.seed)
        some = items < sorted(self.made.items)[PROBED] if count > PROBED else np.ones(len(items), dtype=bool)
        held_out = backgrounds >= per_item - max(1, round(HELD_OUT * per_item))
        probes["item"] = linear_probe(z[some], items[some], items[some], seed=self.seed, split=held_out[some])
        return probes

    def _attention(self) -> NDArray[np.float64]:
        """Attention scores of the first items on the first background; NaN for the others."""
        scores = np.full(len(self.made), np.nan)
        pixels = prepared(self.encoder, self.made.swapped[:ATTENDED, 0])
        moved = occlusion(self.encoder, pixels)
        side = moved.shape[-1]
        masks = [cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA) for mask in self.made.masks[:ATTENDED]]
        scores[: len(moved)] = attention_score(moved, np.stack(masks) / 255.0)
        return scores

    def _disentanglement(self) -> Disentanglement | None:
        photos = self.made.factor_photos
        if photos is None or self.encoder.dim > MOST_UNITS:
            return None
        return disentanglement(
            embed_pictures(self.encoder, photos.pictures), photos.factors, np.asarray(photos.items), seed=self.seed
        )

    def _versus(
        self, swap: SwapTest, moved: NDArray[np.float64], attended: NDArray[np.float64], base: EncoderComparison
    ) -> dict[str, Paired]:
        by_product = Bootstrap(swap.items, replicates=self.replicates, seed=self.seed)
        pairs = {
            "clean map@r": (swap.clean[MAP_AT_R], base.swap.clean[MAP_AT_R], by_product, True),
            "swapped map@r": (swap.swapped[MAP_AT_R], base.swap.swapped[MAP_AT_R], by_product, True),
            "swapped recall@1": (swap.swapped["recall@1"], base.swap.swapped["recall@1"], by_product, True),
            "displacement": (moved, base.displacements, self.by_item, False),
            "attention score": (attended, base.attentions, self.by_item, False),
        }
        tests = {
            name: paired_test(values, theirs, over, of_shares=of_shares, seed=self.seed)
            for name, (values, theirs, over, of_shares) in pairs.items()
        }
        adjusted = holm({name: test.p for name, test in tests.items()})
        return {name: Paired(test.difference, adjusted[name]) for name, test in tests.items()}

    def _top(self) -> NDArray[np.intp]:
        count, per_item, dim = self.swapped.shape
        order = np.random.default_rng(self.seed).permutation(count)
        blocks = score_blocks(self.swapped.reshape(-1, dim), self.gallery, self.encoder.metric)
        nearest = np.concatenate([rank(scores, order)[:, :SHOWN] for _, scores in blocks])
        return nearest.reshape(count, per_item, -1)

    def _reconstructions(self) -> Pixels | None:
        if not self.encoder.is_generative:
            return None
        pictures = self.made.swapped[:RECONSTRUCTED]
        shown = self.encoder.reconstruct(
            torch.from_numpy(prepared(self.encoder, pictures.reshape(-1, *pictures.shape[2:])))
        )
        pixels = (shown.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        return pixels.reshape(*pictures.shape[:2], *pixels.shape[1:])
