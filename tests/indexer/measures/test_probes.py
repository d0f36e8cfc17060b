"""Probes: what a linear reading of a latent says of held-out groups, and how groups are split."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score

from indexer.measures import disentanglement as module
from indexer.measures.disentanglement import (
    dci,
    disentanglement,
    held_out_groups,
    kind_of,
    linear_probe,
    mig,
)
from tests.indexer.measures.factors import AXES, FACTORS, ITEMS, LABELLED, NOISE, PHOTOS, RNG, seeds

# --- probes


def test_an_r2_is_that_of_scikit_learn_on_the_held_out_side() -> None:
    z = np.column_stack([np.ones(PHOTOS), AXES])
    target = 5 + AXES @ [1.0, -2.0, 0.5, 0.0] + 0.7 * NOISE[:, 0]
    held_out = held_out_groups(ITEMS, seed=3)
    weights = np.linalg.lstsq(z[~held_out], target[~held_out])[0]
    probe = linear_probe(AXES, target, ITEMS, seed=3)
    assert probe.kind == "r2"
    assert probe.chance == 0
    assert probe.score.value == pytest.approx(r2_score(target[held_out], z[held_out] @ weights), abs=0.005)
    assert probe.score.low < probe.score.value - 0.01 < probe.score.value + 0.01 < probe.score.high


def test_chance_is_the_share_of_the_commonest_label_held_out() -> None:
    split = np.arange(12) % 3 == 0
    labels = np.array(["a", "b", "b"] * 4)
    labels[[0, 1]] = labels[[1, 0]]  # held out are now b a a a, and fitted to are a and seven b
    probe = linear_probe(np.zeros((12, 2)), labels, np.arange(12), split=split)
    assert probe.kind == "accuracy"
    assert probe.chance == 0.75
    assert probe.score.value == 0.25, "the label that is commonest on the other side"


def test_a_probe_separates_what_a_plane_separates_and_no_more() -> None:
    plane, corners = AXES[:, 0] > AXES[:, 1], (AXES[:, 0] > 0) == (AXES[:, 1] > 0)
    assert linear_probe(AXES, plane, ITEMS).score.value > 0.95
    assert linear_probe(AXES, corners, ITEMS).score.value < 0.65


def test_the_interval_is_over_groups_not_photos() -> None:
    items = np.random.default_rng(1).normal(size=(20, 2))
    z, groups = np.repeat(items, 30, axis=0), np.repeat(np.arange(20), 30)
    label = np.repeat(items[:, 0] + np.random.default_rng(2).normal(size=20) > 0, 30)
    split = groups < 10
    together = linear_probe(z, label, groups, split=split)
    apart = linear_probe(z, label, np.arange(600), split=split)
    assert together.score.value == apart.score.value
    assert together.score.high - together.score.low > 3 * (apart.score.high - apart.score.low)


def test_the_interval_is_of_as_many_resamples_as_asked_for_by_the_seed() -> None:
    split = held_out_groups(ITEMS)
    one, other = (linear_probe(AXES, NOISE[:, 0], ITEMS, split=split, replicates=1, seed=seed).score for seed in (0, 1))
    assert one.low == one.high
    assert one.value == other.value
    assert one.low != other.low


def test_units_are_scaled_by_the_train_side_alone() -> None:
    labels, split = AXES[:, 0] > 0, held_out_groups(ITEMS)
    z = AXES.copy()
    z[np.flatnonzero(split)[0], 0] = 1e9  # would make all other values look equal
    before, after = (linear_probe(latents, labels, ITEMS, split=split).score.value for latents in (AXES, z))
    assert before > 0.95
    assert after == pytest.approx(before, abs=1 / split.sum())


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), seeds)
def test_no_group_is_on_both_sides(groups: list[str], seed: int) -> None:
    held_out = held_out_groups(groups, seed=seed)
    names = np.array(groups)
    out, fitted = set(names[held_out]), set(names[~held_out])
    assert not out & fitted
    assert len(out) == min(2, len(out | fitted))


def test_the_seed_chooses_a_quarter_of_the_groups() -> None:
    first, again, other = (held_out_groups(ITEMS, seed=seed) for seed in (1, 1, 2))
    assert first.sum() == PHOTOS / 4
    assert (first == again).all()
    assert (first != other).any()


def test_the_seed_holds_the_same_groups_out_of_forests_and_probes() -> None:
    exceptions = {seed: (AXES[:, 0] > 0) ^ held_out_groups(ITEMS, seed=seed) for seed in (3, 4)}
    for seed, labels in exceptions.items():
        figures = disentanglement(AXES, {"label": labels}, ITEMS, seed=seed)
        assert figures.dci.informativeness < 0.05
        assert figures.probes["label"].score.value < 0.05


def test_a_ridge_is_not_misled_by_what_photos_of_an_item_share() -> None:
    rng = np.random.default_rng(5)
    items = np.arange(400) // 4
    z, values = rng.normal(size=(100, 60))[items], rng.normal(size=100)[items]
    assert linear_probe(z, values, items).score.value > -0.3, "a penalty chosen by single photos is no penalty"


@pytest.mark.parametrize("kind", ["accuracy", "r2"])
def test_what_is_only_known_of_an_item_helps_with_no_other(kind: str) -> None:
    rng = np.random.default_rng(5)
    items = np.arange(400) // 4
    z, values = rng.normal(size=(100, 150))[items], rng.normal(size=100)[items]  # all can be learnt by heart
    target = values if kind == "r2" else values > 0
    honest, leaking = (linear_probe(z, target, groups) for groups in (items, np.arange(400)))
    assert honest.score.value < honest.chance + 0.05
    assert leaking.score.value > 0.95
    honest_forest, leaking_forest = (dci(z, {"item's": target}, groups) for groups in (items, np.arange(400)))
    assert honest_forest.informativeness < honest.chance + 0.05
    assert leaking_forest.informativeness > honest.chance + 0.2


def test_a_probe_for_the_items_themselves_holds_out_photos_of_each() -> None:
    items = np.array([f"item {n}" for n in ITEMS])
    centres = RNG.normal(size=(200, 16))
    z = centres[ITEMS] + 0.1 * RNG.normal(size=(PHOTOS, 16))
    probe = linear_probe(z, items, items, split=np.arange(PHOTOS) % 3 == 0)
    assert probe.chance == 1 / 200
    assert probe.score.low > 0.9
    assert linear_probe(z, items, items).score.value == 0, "labels that were never seen are missed"


def test_a_probe_that_runs_out_of_iterations_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        assert linear_probe(AXES, LABELLED["hue"], ITEMS).score.value > 0.4


# --- undefined figures and invalid arguments


@pytest.mark.parametrize("only", [np.zeros(PHOTOS), np.full(PHOTOS, "red"), np.ones(PHOTOS, np.int64)])
def test_a_factor_with_one_value_has_no_figures_and_no_part_in_means(only: np.ndarray) -> None:
    factors = {"light": AXES[:, 0], "angle": AXES[:, 1]}
    alone, figures = (disentanglement(AXES[:, :3], given, ITEMS) for given in (factors, {**factors, "only": only}))
    assert np.isnan(figures.mig.factors["only"])
    assert np.isnan(figures.dci.factors["only"])
    assert np.isnan([*figures.probes["only"].score, figures.probes["only"].chance]).all()
    assert figures.mig.mean == alone.mig.mean
    assert figures.dci[:3] == alone.dci[:3]


def test_too_few_groups_have_no_held_out_figures() -> None:
    few, enough = np.arange(PHOTOS) % 3, np.arange(PHOTOS) % 4
    figures = disentanglement(AXES, LABELLED, few)
    assert np.isnan([*figures.dci[:3], *figures.dci.factors.values()]).all()
    assert all(np.isnan(probe.score.value) for probe in figures.probes.values())
    assert figures.mig.mean > 0.8, "which holds nothing out"
    assert linear_probe(AXES, LABELLED["light"], enough).score.value > 0.99


def test_one_factor_alone_has_no_disentanglement_and_dead_latents_no_importance() -> None:
    alone = dci(AXES, {"light": AXES[:, 0]}, ITEMS)
    assert np.isnan(alone.disentanglement)
    assert alone.completeness > 0.95
    dead = dci(np.zeros((PHOTOS, 2)), {"light": AXES[:, 0], "angle": AXES[:, 1]}, ITEMS)
    assert np.isnan([dead.disentanglement, dead.completeness]).all()
    assert dead.informativeness == pytest.approx(0, abs=0.1)


def test_folds_of_a_single_photo_are_no_obstacle() -> None:
    groups = np.arange(8)
    probe = linear_probe(AXES[:8], FACTORS["light"][:8], groups)
    assert np.isfinite(probe.score).all()


def test_figures_are_the_same_again_and_go_into_json() -> None:
    factors = {name: LABELLED[name] for name in ("light", "hue")}
    first, again = (disentanglement(AXES, factors, ITEMS, seed=7) for _ in range(2))
    assert first == again
    written = json.loads(json.dumps(first.to_json()))
    assert list(written) == ["mig", "dci", "probes"]
    assert written["mig"]["factors"]["light"] == first.mig.factors["light"]
    assert written["dci"]["completeness"] == first.dci.completeness
    assert written["probes"]["hue"] == {
        "score": {"value": first.probes["hue"].score.value, "ci": list(first.probes["hue"].score[1:])},
        "chance": first.probes["hue"].chance,
        "kind": "accuracy",
    }


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(np.float32, "r2"), (np.int64, "accuracy"), (np.bool_, "accuracy"), (np.str_, "accuracy"), (object, "accuracy")],
)
def test_floats_are_continuous_and_all_else_are_labels(dtype: type, kind: str) -> None:
    target: np.ndarray = np.array([0, 1] * 20).astype(dtype)
    assert kind_of(target) == kind
    assert linear_probe(np.array([[0.0], [1.0]] * 20), target, np.arange(40)).kind == kind


def test_labels_of_mixed_types_are_told_apart_as_text() -> None:
    mixed = np.array([None, "red", 3, 3], object)
    z = np.array([[0.0], [1.0], [2.0], [2.0]])
    assert mig(z, {"mixed": mixed}).mean == pytest.approx(1.0)


def test_arguments_that_do_not_fit_are_refused() -> None:
    light = FACTORS["light"]
    with pytest.raises(ValueError, match=r"latents of shape \(600,\)"):
        mig(AXES[:, 0], FACTORS)
    with pytest.raises(ValueError, match="are not finite"):
        dci(np.where(AXES > 0.9, np.nan, AXES), FACTORS, ITEMS)
    with pytest.raises(ValueError, match="values that are not finite"):
        mig(AXES, {"light": np.where(light > 0.9, np.inf, light)})
    with pytest.raises(ValueError, match=r"factor has shape \(10,\)"):
        linear_probe(AXES, light[:10], ITEMS)
    with pytest.raises(ValueError, match="10 groups are given for 600"):
        linear_probe(AXES, light, ITEMS[:10])
    with pytest.raises(ValueError, match="complex128"):
        mig(AXES, {"light": light + 0j})
    with pytest.raises(ValueError, match=r"\(600,\) booleans"):
        linear_probe(AXES, light, ITEMS, split=np.arange(150))
