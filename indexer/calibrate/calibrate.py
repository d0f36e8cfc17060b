"""Fits a calibration to the catalogue's own photos and stores it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from indexer.calibrate.calibration import MIN_CALIBRATION_ITEMS, PRESENT, Calibration, is_current
from indexer.calibrate.probability import (
    bins_for,
    brier,
    cross_fit,
    ece_interval,
    ece_of_chance,
    fit,
    log_loss,
    reliability,
)
from indexer.catalogue.home import Home
from indexer.errors import CalibrationError, InvalidRequestError, MismatchError
from training.data.decode import ImageLimits
from training.errors import NitamonoError

if TYPE_CHECKING:
    from indexer.calibrate.pairs import Pairs

QUERIES = 400  # query items: the ECE's confidence interval is about 0.01 wide, and the time is bounded
MIN_POSITIVES = 20  # pairs of the same product, and of different ones; with fewer, a curve would be noise
GROWTH = 2  # calibrate again when the collection has grown by this factor


def calibrate(
    home: Home,
    collection: str,
    *,
    encoder_id: str | None = None,
    present: float | Literal["auto"] | None = None,
    queries: int = QUERIES,
    seed: int = 0,
    limits: ImageLimits | None = None,
    device: str = "cpu",
) -> Calibration:
    """Fit and store the calibration of an encoder in a collection; searches use it at once.

    Args:
        encoder_id: None for the active encoder; another one must have vectors of all images.
        present: share of queries whose product is in the catalogue, in (0, 1]; "auto" estimates it from recent
            queries, None keeps the share of the last calibration.
        queries: maximum number of items that are used as queries.
        seed: random seed of the query photos, the folds and the bootstrap.
        limits, device: for embedding other views of photos.

    Raises:
        NotFoundError: the collection does not exist, or has no index.
        MismatchError: images lack a vector by the encoder.
        InvalidRequestError: the share is not in (0, 1].
        CalibrationError: too few items, pairs of the same product, or recent queries to estimate the share.
    """
    from indexer.calibrate.pairs import collect_pairs
    from indexer.calibrate.prior import estimate_present

    if isinstance(present, float | int) and not 0 < present <= 1:
        raise InvalidRequestError("present", f"present must be above 0 and at most 1, or auto, not {present}")

    state = home.catalogue.search_state(collection) if encoder_id else home.catalogue.active_state(collection)
    encoder_id = encoder_id or str(state.encoder_id)
    if missing := home.catalogue.vectors.missing(state.collection_id, encoder_id):
        raise MismatchError(
            f"{len(missing)} images of {collection!r} lack a vector by encoder {encoder_id[:12]}; "
            "run `nitamono index SOURCE --encoder REF`"
        )
    described = home.encoder(encoder_id)
    if present is None:
        present = _last_share(home, state.collection_id, (encoder_id, state.encoder_id))
    try:
        if present == "auto":
            present = estimate_present(
                home, state.collection_id, described, queries=queries, seed=seed, limits=limits, device=device
            )
        pairs = collect_pairs(
            home,
            state.collection_id,
            described,
            queries=queries,
            present=float(present),
            seed=seed,
            limits=limits,
            device=device,
        )
        calibration = calibration_of(pairs, encoder_id, seed=seed)
    except CalibrationError as exc:
        raise CalibrationError(f"collection {collection!r} cannot be calibrated: {exc}") from exc
    home.catalogue.calibrations.put(state.collection_id, encoder_id, calibration.to_json())
    if "calibration" in described.card:  # of an encoder that a retraining promoted
        home.amend_card(encoder_id, calibration=calibration.to_json())
    return calibration


def _last_share(home: Home, collection_id: int, encoder_ids: Sequence[str | None]) -> float:
    """The share of the last calibration by the first of these encoders that has one, or the default."""
    for encoder_id in filter(None, encoder_ids):
        content = home.catalogue.calibrations.get(collection_id, encoder_id) or {}
        if "present" in content:
            return float(content["present"])
    return PRESENT


def calibration_of(pairs: Pairs, encoder_id: str, *, seed: int = 0) -> Calibration:
    """Fit a curve to all pairs and cross-validate the procedure; raises `CalibrationError` for too few pairs."""
    labels, groups, first = pairs.labels, pairs.groups, pairs.first
    positives = int(labels.sum())
    if min(positives, len(labels) - positives) < MIN_POSITIVES:
        raise CalibrationError(
            f"{positives} of {len(labels)} pairs are of the same product; {MIN_POSITIVES} of each kind are needed"
        )
    held_out = cross_fit(pairs.scores, pairs.others, labels, groups, seed=seed)
    ece = ece_interval(held_out, labels, groups, seed=seed)
    bins = bins_for(int(first.sum()))
    ece_first = ece_interval(held_out[first], labels[first], groups[first], bins=bins, seed=seed)
    return Calibration(
        curve=fit(pairs.scores, pairs.others, labels, groups, seed=seed),
        encoder_id=encoder_id,
        truth=pairs.truth,
        queries=pairs.queries,
        pairs=len(labels),
        positives=positives,
        images=pairs.images,
        present=pairs.present,
        ece=ece.value,
        ece_ci=(ece.low, ece.high),
        ece_chance=ece_of_chance(held_out, seed=seed),
        ece_first=ece_first.value,
        ece_first_ci=(ece_first.low, ece_first.high),
        ece_first_chance=ece_of_chance(held_out[first], bins=bins, seed=seed),
        brier=brier(held_out, labels),
        log_loss=log_loss(held_out, labels),
        reliability=reliability(held_out, labels),
    )


def calibrate_if_due(
    home: Home, collection: str, *, limits: ImageLimits | None = None, device: str = "cpu"
) -> Calibration | None:
    """Calibrate the active encoder if it was never calibrated, or not since the number of images doubled.

    Early calibrations of the score alone predict first hits poorly and count as missing.

    Returns None if calibration is not due or not possible. A refusal is stored so that it is not repeated until the
    collection has grown; a passing failure, such as a busy catalogue, leaves the calibration due. The index stays
    active in any case.
    """
    state = home.catalogue.search_state(collection)
    if state.encoder_id is None:
        return None
    with suppress(NitamonoError):
        images = sum(r.count for r in home.catalogue.generations.all(collection) if r.number == state.generation)
        known = home.catalogue.calibrations.get(state.collection_id, state.encoder_id) or {}
        calibrated = known["images"] if is_current(known) else 0
        if images < max(MIN_CALIBRATION_ITEMS, GROWTH * calibrated, GROWTH * known.get("tried", 0)):
            return None
        try:
            return calibrate(home, collection, limits=limits, device=device)
        except CalibrationError as exc:
            refused = {**known, "tried": images, "refused": str(exc)}
            home.catalogue.calibrations.put(state.collection_id, state.encoder_id, refused)
    return None
