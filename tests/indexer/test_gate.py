"""The gate against evidence of which the verdict is known, and against chance."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from indexer.evaluate.metrics import Bootstrap
from indexer.gate import Evidence, GateRule, judge, winner

ITEMS = 60
NAMES = [f"item {n:02d}" for n in range(ITEMS)]
RULE = GateRule()
RNG = np.random.default_rng(0)
ACTIVE = Evidence("active", NAMES, RNG.uniform(0.6, 0.9, ITEMS), RNG.uniform(0.2, 0.5, ITEMS))
NOISE = RNG.normal(0, 0.1, ITEMS)


def candidate(swapped: float, clean: float = 0.0, noise: float = 0.0, name: str = "candidate") -> Evidence:
    """An encoder with so much more MAP@R than the active one's on every item, but for noise without a mean."""
    own = noise * (NOISE - NOISE.mean())
    return Evidence(name, NAMES, ACTIVE.clean + clean, ACTIVE.swapped + swapped + own)


def test_a_better_candidate_is_promoted_and_says_by_how_much() -> None:
    verdict = judge(RULE, ACTIVE, {"new": candidate(0.1, noise=1.0)})["new"]
    assert verdict.promoted and verdict.encoder_id == "candidate"
    assert verdict.swapped_difference == pytest.approx(0.1)
    assert 0.05 < verdict.swapped_bound < 0.1
    assert verdict.clean_difference == 0
    assert verdict.reasons == (
        f"swapped MAP@R is +0.100, at least {verdict.swapped_bound:+.3f} with 95.0% confidence: better",
        "clean MAP@R is +0.000: within the margin of 0.02",
    )
    assert verdict.to_json() == asdict(verdict)


def test_a_worse_candidate_is_refused() -> None:
    verdict = judge(RULE, ACTIVE, {"new": candidate(-0.1)})["new"]
    assert not verdict.promoted
    assert "not shown to be better" in verdict.reasons[0]


def test_a_tie_is_refused() -> None:
    verdict = judge(RULE, ACTIVE, {"same": replace(ACTIVE, encoder_id="same")})["same"]
    assert not verdict.promoted
    assert verdict.swapped_difference == verdict.swapped_bound == verdict.clean_difference == 0


def test_a_gain_that_may_be_luck_is_refused() -> None:
    """0.01 on the mean with a standard error of 0.013 is not sure; a hundred times as many items would make it so."""
    assert not judge(RULE, ACTIVE, {"new": candidate(0.01, noise=1.0)})["new"].promoted
    assert judge(RULE, ACTIVE, {"new": candidate(0.01, noise=0.1)})["new"].promoted


@pytest.mark.parametrize(("clean", "promoted"), [(-0.019, True), (-0.021, False), (-0.3, False), (0.2, True)])
def test_what_is_lost_on_clean_photos_stays_within_the_margin(clean: float, promoted: bool) -> None:
    verdict = judge(RULE, ACTIVE, {"new": candidate(0.2, clean)})["new"]
    assert verdict.promoted == promoted
    assert verdict.clean_difference == pytest.approx(clean)
    assert ("within the margin" if promoted else "worse by more than the margin") in verdict.reasons[1]
    assert judge(GateRule(margin=0.5), ACTIVE, {"new": candidate(0.2, clean)})["new"].promoted


def test_the_more_candidates_the_surer_each_must_be() -> None:
    """Bonferroni: each of n at 1 - 0.05 / n. The bound is the percentile of the bootstrap that the rule names."""
    new = candidate(0.03, noise=1.0)
    bounds = []
    for count in (1, 4, 50):
        many = {f"c{n}": new for n in range(count)}
        verdicts = judge(RULE, ACTIVE, many)
        assert len({verdict.swapped_bound for verdict in verdicts.values()}) == 1
        bounds.append(verdicts["c0"].swapped_bound)
        by_hand = Bootstrap(NAMES, replicates=10_000).lower_bound(new.swapped - ACTIVE.swapped, 1 - 0.05 / count)
        assert bounds[-1] == pytest.approx(by_hand)
        assert verdicts["c0"].promoted == (bounds[-1] > 0)
    assert bounds[0] > 0 > bounds[2] and bounds[0] > bounds[1] > bounds[2]
    assert (
        f"with {1 - 0.05 / 4:.1%} confidence" in judge(RULE, ACTIVE, {f"c{n}": new for n in range(4)})["c0"].reasons[0]
    )


def test_a_lower_confidence_lets_more_through() -> None:
    new = candidate(0.013, noise=1.0)
    assert not judge(RULE, ACTIVE, {"new": new})["new"].promoted
    assert judge(GateRule(confidence=0.6), ACTIVE, {"new": new})["new"].promoted


def test_the_best_of_the_promoted_wins_and_none_where_none_is() -> None:
    candidates = {
        "good": candidate(0.1), "better": candidate(0.2), "worse": candidate(-0.1),
        "best but blind on clean photos": candidate(0.4, clean=-0.2),
    }  # fmt: skip
    verdicts = judge(RULE, ACTIVE, candidates)
    assert [name for name, verdict in verdicts.items() if verdict.promoted] == ["good", "better"]
    assert winner(verdicts, candidates) == "better"
    only = {"worse": candidates["worse"]}
    assert winner(judge(RULE, ACTIVE, only), only) is None
    assert judge(RULE, ACTIVE, {}) == {} and winner({}, {}) is None


@pytest.mark.parametrize("names", [NAMES[::-1], NAMES[1:], [*NAMES[1:], "another"]])
def test_evidence_of_other_items_is_refused(names: list[str]) -> None:
    other = replace(candidate(0.1), products=names)
    with pytest.raises(ValueError, match="new was measured on other items than the active encoder"):
        judge(RULE, ACTIVE, {"new": other})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"confidence": 1.0}, "confidence must be between 0.5 and 1, not 1.0"),
        ({"confidence": 0.4}, "confidence must be between 0.5 and 1, not 0.4"),
        ({"confidence": float("nan")}, "confidence must be between 0.5 and 1, not nan"),
        ({"margin": -0.01}, "margin must be between 0 and 1, not -0.01"),
        ({"margin": 1.5}, "margin must be between 0 and 1, not 1.5"),
    ],
)
def test_a_rule_without_meaning_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateRule(**values)


@pytest.mark.parametrize(("items", "confidence"), [(8, 0.95), (8, 0.99), (60, 0.95)])
def test_the_bound_is_below_the_truth_as_often_as_it_says_even_of_few_items(items: int, confidence: float) -> None:
    trials = 600
    missed = 0
    bootstrap = Bootstrap(NAMES[:items], replicates=4000)
    for trial in range(trials):
        values = np.random.default_rng(trial).normal(size=items)
        bound = bootstrap.lower_bound(values, confidence)
        assert bound < values.mean()
        missed += bound > 0
    error = np.sqrt(confidence * (1 - confidence) / trials)
    assert abs(missed / trials - (1 - confidence)) <= 3 * error


def test_a_single_item_bounds_nothing() -> None:
    one = Evidence("one", ["item"], np.ones(1), np.zeros(1))
    verdict = judge(RULE, one, {"new": replace(one, swapped=np.ones(1))})["new"]
    assert np.isnan(verdict.swapped_bound) and not verdict.promoted


@pytest.mark.parametrize("candidates", [1, 5])
def test_chance_promotes_one_time_in_twenty_at_most(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that are as good as the active one in truth, each right on some of the five queries of an item."""
    monkeypatch.setattr("indexer.gate.REPLICATES", 1000)
    trials, promoted = 200, 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        difficulty = rng.beta(0.7, 0.7, ITEMS)

        def drawn(name: str, rng: np.random.Generator = rng, difficulty: np.ndarray = difficulty) -> Evidence:
            return Evidence(name, NAMES, np.ones(ITEMS), rng.binomial(5, difficulty) / 5)

        others = {f"c{n}": drawn(f"c{n}") for n in range(candidates)}
        promoted += winner(judge(RULE, drawn("active"), others, seed=trial), others) is not None
    assert promoted / trials <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / trials)
