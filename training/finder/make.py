"""From sources to a finder directory: collect cut-outs and backgrounds, train, label photos, train on, save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.card import read_card
from training.data.backgrounds import Draw, Folder, PhotoBackgrounds, gradient, room, texture
from training.data.dataset import FAILED, Dataset, load_dataset
from training.data.sources import read_all
from training.finder.cutouts import SIDE, Cutout, file_cutouts, gather, photo_cutouts, shape_cutouts, studio_cutouts
from training.finder.fit import FinderFit, TrustedPhotos, fit_finder
from training.finder.network import Finder, FinderConfig
from training.finder.scenes import SceneMaker
from training.finder.self_training import agreed_photos
from training.finder.store import save_finder
from training.preprocessing import Preprocessing
from training.provenance import git_commit

BACKGROUNDS = 4000
REPEATED_STUDIO, REPEATED_FILES = 2, 5  # how often each of these cut-outs is used, compared with random shapes
SECOND_RATE = 0.5  # factor of the learning rate after photos are labelled


@dataclass(frozen=True)
class FinderPlan:
    """Data and settings of a finder's training.

    Args:
        photos: sources of unlabelled photos, see `training.data.sources`; masks are used if given.
        cutouts: folder of images with an alpha channel.
        backgrounds: folder of backgrounds, in addition to drawn ones.
        shapes, studio: number of random shapes and of studio items to draw.
        steps, minutes: training ends when either is reached.
        precision: 32 or bf16-mixed.
        self_training: share of the training that follows the labelling of photos by the finder itself.
    """

    photos: Sequence[Path] = ()
    cutouts: Path | None = None
    backgrounds: Path | None = None
    shapes: int = 6000
    studio: int = 1400
    steps: int = 8000
    minutes: float | None = None
    self_training: float = 0.35
    precision: str = "32"
    seed: int = 0


def make_finder(
    plan: FinderPlan,
    out: Path,
    *,
    config: FinderConfig | None = None,
    advance: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Path, dict[str, Any]]:
    """Train a finder and write its directory; returns the directory and its card.

    Args:
        config: configuration of the network; None for that of the shipped finder.
        advance: called after each step.
        tell: called with lines about the collected data.

    Raises:
        SourceError: a folder does not exist, or there is nothing to cut out.
    """
    config = config or FinderConfig()
    dataset = _load_photos(plan)
    cutouts = gather(_cutouts(plan, dataset))
    backgrounds = _backgrounds(plan, dataset)
    tell(f"{len(cutouts)} cut-outs, {len(backgrounds)} backgrounds, {0 if dataset is None else len(dataset)} photos")
    scenes = SceneMaker(cutouts, torch.from_numpy(backgrounds), config.size)
    settings = _fit_settings(plan)
    first = 1.0 - plan.self_training if dataset is not None else 1.0
    known = None if dataset is None else _known(dataset, config.size)
    network, run = _fit(config, settings, first, scenes, known, None, advance)
    runs = {"first": run}
    agreed = 0
    if dataset is not None and plan.self_training > 0:
        labelled = agreed_photos(_resized(dataset.images, config.size), network.folded())
        agreed = len(labelled.images)
        tell(f"{agreed} of {len(dataset)} photos are labelled by the finder")
        second = replace(settings, lr=SECOND_RATE * settings.lr, seed=settings.seed + 1)
        photos_now = labelled if agreed else known
        network, runs["second"] = _fit(config, second, plan.self_training, scenes, photos_now, network, advance)
    card = {
        "name": out.name,
        "description": "finds the item in a photo, whatever kind of thing it is; trained without labels",
        "data": {
            "cutouts": len(cutouts),
            "backgrounds": len(backgrounds),
            "photos": 0 if dataset is None else len(dataset),
            "photos_with_mask": 0 if known is None else len(known.images),
            "photos_labelled": agreed,
            **({} if dataset is None else {"fingerprint": dataset.fingerprint}),
        },
        "fit": asdict(settings),
        "run": runs,
        "seed": plan.seed,
        "commit": git_commit(Path(__file__).parent),
    }
    directory = save_finder(network, out, card)
    return directory, read_card(directory)


def _fit(
    config: FinderConfig,
    settings: FinderFit,
    share: float,
    scenes: SceneMaker,
    known: TrustedPhotos | None,
    start: Finder | None,
    advance: Callable[[], None],
) -> tuple[Finder, dict[str, float]]:
    minutes = None if settings.max_minutes is None else share * settings.max_minutes
    part = replace(settings, steps=max(1, round(share * settings.steps)), max_minutes=minutes)
    photos_there = known if known is not None and len(known.images) else None
    return fit_finder(config, part, scenes, photos_there, start=start, report=lambda step, loss: advance())


def _fit_settings(plan: FinderPlan) -> FinderFit:
    return FinderFit(steps=plan.steps, max_minutes=plan.minutes, precision=plan.precision, seed=plan.seed)


def _load_photos(plan: FinderPlan) -> Dataset | None:
    if not plan.photos:
        return None
    images, _ = read_all(list(plan.photos))
    return load_dataset(images, Preprocessing(SIDE, 3, "pad"), masks=("column", "alpha", "border", "grabcut"))


def _cutouts(plan: FinderPlan, dataset: Dataset | None) -> Iterator[Cutout]:
    material = None if plan.backgrounds is None else Folder(plan.backgrounds).draw
    parts: list[Iterator[Cutout]] = [shape_cutouts(plan.shapes, plan.seed, material)]
    parts += [chain.from_iterable([cutout] * REPEATED_STUDIO for cutout in studio_cutouts(plan.studio, plan.seed))]
    if plan.cutouts is not None:
        parts.append(chain.from_iterable([cutout] * REPEATED_FILES for cutout in file_cutouts(plan.cutouts)))
    if dataset is not None:
        parts.append(photo_cutouts(dataset, [source != FAILED for source in dataset.mask_sources]))
    return chain.from_iterable(parts)


def _backgrounds(plan: FinderPlan, dataset: Dataset | None) -> NDArray[np.uint8]:
    """`(N, 3, SIDE, SIDE)` uint8."""
    rng = np.random.default_rng([plan.seed, 22])
    draws: list[Draw] = [gradient, texture, room, texture]
    if plan.backgrounds is not None:
        draws += [Folder(plan.backgrounds).draw] * 2
    if dataset is not None and dataset.masks is not None:
        draws += [PhotoBackgrounds(dataset.images, dataset.masks).draw] * 3
    drawn = [draws[number % len(draws)](rng, SIDE) for number in range(BACKGROUNDS)]
    return np.stack([np.clip(np.round(d), 0, 255).astype(np.uint8).transpose(2, 0, 1) for d in drawn])


def _known(dataset: Dataset, size: int) -> TrustedPhotos:
    """The photos with usable masks, whose rims are trusted less."""
    usable = np.array([source != FAILED for source in dataset.mask_sources])
    masks = dataset.masks if dataset.masks is not None else np.zeros((0, SIDE, SIDE), np.uint8)
    small = [cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) for mask in masks[usable]]
    kernel = np.ones((5, 5), np.uint8)
    trust = [np.where(cv2.morphologyEx(m, cv2.MORPH_GRADIENT, kernel) > 127, 60, 255).astype(np.uint8) for m in small]
    empty = np.zeros((0, size, size), np.uint8)
    images = _resized(dataset.images[usable], size)
    return TrustedPhotos(images, np.stack(small) if small else empty, np.stack(trust) if trust else empty)


def _resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    small = [cv2.resize(i.transpose(1, 2, 0), (size, size), interpolation=cv2.INTER_AREA) for i in images]
    return np.stack(small).transpose(0, 3, 1, 2) if small else np.zeros((0, 3, size, size), np.uint8)
