"""The score of typicality: the Gaussian, calibration by held-out items, and the file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from indexer.errors import CorruptError
from indexer.typicality import fit
from indexer.typicality.fit import fit_typicality, mean_distances
from indexer.typicality.gaussian import Gaussian, fit_gaussian
from indexer.typicality.typicality import FLAGGED, MIN_ITEMS, NEAREST, TypicalityModel, read_typicality
from indexer.vectors import Floats, Ints
from indexer.vectors.engines import exact_index
from training.reference import Metric

DIM = 12


def groups(count: int, seed: int, *, dim: int = DIM, metric: Metric = "cosine") -> Floats:
    """Vectors in six groups, as a catalogue of six kinds of things has them."""
    centres = np.random.default_rng(99).normal(size=(6, dim))
    rng = np.random.default_rng(seed)
    drawn = centres[rng.integers(0, 6, count)] + 0.3 * rng.normal(size=(count, dim))
    if metric == "cosine":
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32)


def alone(count: int) -> Ints:
    """Ids of `count` items with one image each."""
    return np.stack([np.arange(count), 1000 + np.arange(count)], axis=1)


def fitted(vectors: Floats, metric: Metric = "cosine", ids: Ints | None = None) -> TypicalityModel:
    found = fit_typicality(exact_index(vectors, metric), alone(len(vectors)) if ids is None else ids, vectors, metric)
    assert found is not None
    return found


def percentiles(model: TypicalityModel, gallery: Floats, queries: Floats, metric: Metric = "cosine") -> np.ndarray:
    scores = exact_index(gallery, metric).search(queries, NEAREST).scores.astype(np.float64)
    distances = (1 - scores if metric == "cosine" else -scores).mean(axis=1)
    return model.percentiles(model.scores(queries, distances))


@pytest.mark.parametrize(("count", "dim"), [(200, 8), (30, 20), (15, 40)])
def test_distances_are_those_of_the_covariance_of_ledoit_and_wolf(count: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + 3.0
    reference = LedoitWolf().fit(vectors)
    queries = 2.0 * rng.normal(size=(50, dim))
    found = fit_gaussian(vectors).squared_distances(queries)
    np.testing.assert_allclose(found, reference.mahalanobis(queries), rtol=1e-6)


def test_directions_beyond_the_kept_axes_share_one_variance() -> None:
    vectors = np.random.default_rng(1).normal(size=(400, 10)) * np.arange(1, 11)
    whole, cut = fit_gaussian(vectors), fit_gaussian(vectors, max_axes=4)
    assert cut.axes.shape == (10, 4)
    np.testing.assert_allclose(cut.variances, whole.variances[:4])
    assert cut.rest == pytest.approx(float(whole.variances[4:].mean()))
    along = (cut.mean + 5.0 * cut.axes[:, 0])[None]
    assert cut.squared_distances(along) == pytest.approx(whole.squared_distances(along))


def test_equal_vectors_have_no_gaussian() -> None:
    with pytest.raises(ValueError, match="all vectors are equal"):
        fit_gaussian(np.full((20, 3), 0.3, np.float32))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200),
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_percentiles_are_ranks_in_the_order_of_the_scores(reference: list[float], asked: list[float]) -> None:
    one = Gaussian(np.zeros(1), np.ones((1, 1)), np.ones(1), 1.0)
    model = TypicalityModel(one, np.zeros(2), np.ones(2), np.sort(np.array(reference)))
    scores = np.sort(np.array(asked))
    found = model.percentiles(scores)
    assert (found > 0).all() and (found <= 100).all()
    assert (np.diff(found) <= 0).all()  # a higher score is less typical
    by_hand = [100 * (1 + sum(r >= s for r in reference)) / (1 + len(reference)) for s in scores]
    np.testing.assert_allclose(found, by_hand)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_held_out_items_of_the_same_kind_have_uniform_percentiles(metric: Metric) -> None:
    """2,000 new vectors: 1 % are flagged, within three deviations of the estimate from 600 references."""
    gallery, queries = groups(600, 0, metric=metric), groups(2000, 1, metric=metric)
    found = percentiles(fitted(gallery, metric), gallery, queries, metric)
    assert float((found < FLAGGED).mean()) == pytest.approx(0.01, abs=0.014)
    for share in (10, 25, 50, 75):
        assert float((found < share).mean()) == pytest.approx(share / 100, abs=0.06)


def test_calibration_on_the_vectors_that_were_fitted_would_flag_too_many() -> None:
    """What cross-fitting is for: with 40 dimensions and 150 items, the fitted items are far too typical."""
    gallery, queries = groups(150, 0, dim=40), groups(1000, 1, dim=40)
    model = fitted(gallery)
    held_out = percentiles(model, gallery, queries)
    own = percentiles(model, gallery, gallery)
    assert float((held_out < 10).mean()) == pytest.approx(0.10, abs=0.07)
    assert float((own < 10).mean()) < 0.02


def test_foreign_vectors_are_flagged_and_empty_ones_too() -> None:
    gallery = groups(600, 0)
    model = fitted(gallery)
    elsewhere = -groups(50, 2)
    middle = gallery.mean(axis=0, keepdims=True)
    middle /= np.linalg.norm(middle)  # between all groups, as a picture without content
    assert (percentiles(model, gallery, elsewhere) < FLAGGED).all()
    assert not model.of(elsewhere[0], 0.9).like_catalogue
    assert percentiles(model, gallery, middle)[0] < 5


def test_an_item_is_held_out_with_all_its_photos_and_copies() -> None:
    """Several photos of an item, or the same photo under two items, must not make held-out items too typical."""
    photos = np.repeat(groups(300, 0), 3, axis=0)
    photos += 0.01 * np.random.default_rng(3).normal(size=photos.shape).astype(np.float32)
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    ids = np.stack([np.arange(900), np.repeat(np.arange(300), 3)], axis=1)
    queries = groups(1000, 1)

    def distances(model: TypicalityModel) -> np.ndarray:
        best = exact_index(photos, "cosine").search(queries, 3 * NEAREST).scores[:, ::3].astype(np.float64)
        return model.percentiles(model.scores(queries, (1 - best).mean(axis=1)))

    found = distances(fitted(photos, ids=ids))
    assert float((found < 10).mean()) == pytest.approx(0.10, abs=0.06)
    listed_twice = np.concatenate([groups(300, 0)] * 2)
    index = exact_index(listed_twice, "cosine")
    alike = mean_distances(index, np.arange(600), listed_twice, np.arange(300), "cosine")
    assert alike.min() > 0.01  # not the distance to the copy, which is 0


def test_mean_distances_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items with up to 70 photos need more than the first fetch."""
    monkeypatch.setattr(fit, "BLOCK", 7)
    vectors = groups(400, 5)
    items = np.minimum(np.arange(400) // 2, 130)  # the last item has 140 photos
    positions = np.array([0, 3, 260, 399])
    found = mean_distances(exact_index(vectors, "cosine"), items, vectors, positions, "cosine")
    for place, expected in zip(positions, found, strict=True):
        away = 1 - vectors[place].astype(np.float64) @ vectors.T.astype(np.float64)
        by_item = sorted(min(away[items == item]) for item in set(items.tolist()) if item != items[place])
        assert np.mean(by_item[:NEAREST]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [0, 1, MIN_ITEMS - 1])
def test_too_few_items_have_no_typicality(count: int) -> None:
    vectors = groups(count, 0)
    assert fit_typicality(exact_index(vectors, "cosine"), alone(count), vectors, "cosine") is None
    several = groups(500, 0)
    ids = np.stack([np.arange(500), np.arange(500) % (MIN_ITEMS - 1)], axis=1)
    assert fit_typicality(exact_index(several, "cosine"), ids, several, "cosine") is None


def test_the_smallest_collection_can_flag_and_equal_vectors_have_no_typicality() -> None:
    gallery = groups(MIN_ITEMS, 0)
    assert percentiles(fitted(gallery), gallery, -gallery[:5]).max() < FLAGGED
    equal = np.tile(gallery[:1], (MIN_ITEMS, 1))
    assert fit_typicality(exact_index(equal, "cosine"), alone(MIN_ITEMS), equal, "cosine") is None


def test_vectors_of_many_dimensions_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    def watched(vectors: Floats) -> Gaussian:
        sizes.append(vectors.shape)
        return fit_gaussian(vectors)

    monkeypatch.setattr(fit, "fit_gaussian", watched)
    monkeypatch.setattr(fit, "BUDGET", 10**6)
    model = fitted(groups(300, 0, dim=400))
    assert len(sizes) == 6 and all(count * dim * min(count, dim) <= 10**6 for count, dim in sizes)
    assert model.gaussian.mean.shape == (400,)


def test_the_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    gallery = groups(200, 0)
    content = fitted(gallery).to_bytes()
    path = tmp_path / "typicality.npz"
    path.write_bytes(content)
    read = read_typicality(path, DIM)
    queries = groups(50, 1)
    np.testing.assert_allclose(
        percentiles(read, gallery, queries), percentiles(fitted(gallery), gallery, queries), atol=1.0
    )
    first, second = (np.load(io.BytesIO(made)) for made in (content, fitted(gallery).to_bytes()))
    assert all((first[name] == second[name]).all() for name in first.files)


def changed(path: Path, **changes: Any) -> None:
    """The file with other arrays; None removes one."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": np.array(2)}, "its format is not 1"),
        ({"format": None}, "its format is not 1"),
        ({"format": np.array("1")}, "its format is not 1"),
        ({"mean": np.zeros(5)}, r"mean has shape \(5,\), expected \(12,\)"),
        ({"axes": np.zeros(DIM)}, r"axes has shape \(12,\), expected \(12, 0\)"),
        ({"variances": np.ones(3)}, r"variances has shape \(3,\), expected \(12,\)"),
        ({"variances": np.zeros(DIM)}, "variances has values that are not above 0"),
        ({"rest": np.array(-1.0)}, "rest has values that are not above 0"),
        ({"scales": np.array([1.0, np.nan])}, "scales has values that are not finite numbers"),
        ({"centres": np.array([1, 2])}, "centres has values that are not finite numbers"),
        ({"centres": np.array(["a", "b"])}, "centres has values that are not finite numbers"),
        ({"reference": None}, r"reference has shape missing, expected \(1,\)"),
        ({"reference": np.zeros(0)}, r"reference has shape \(0,\), expected \(1,\)"),
        ({"reference": np.array([2.0, 1.0])}, "reference is not in ascending order"),
        ({"mean": np.array([None] * DIM)}, "cannot be read"),  # would be a pickle
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "typicality.npz"
    path.write_bytes(fitted(groups(200, 0)).to_bytes())
    changed(path, **changes)
    with pytest.raises(CorruptError, match=f"typicality.npz: {message}"):
        read_typicality(path, DIM)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "typicality.npz"
    with pytest.raises(CorruptError, match="cannot be read"):
        read_typicality(path, DIM)
    for content in (b"", b"PK\x03\x04 cut", fitted(groups(200, 0)).to_bytes()[:-40]):
        path.write_bytes(content)
        with pytest.raises(CorruptError, match="cannot be read"):
            read_typicality(path, DIM)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("mean.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(CorruptError, match="its arrays take 314,572,800 bytes, more than 268,435,456"):
        read_typicality(path, DIM)
