"""The gate against evidence of which the verdict is known, and against chance."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from indexer.measures.crossed import crossed_bound, loss_bound
from indexer.retrain.gate import Evidence, GateRule, Verdict, best_promoted, confidence_text, give_verdicts

ITEMS, BACKGROUNDS = 60, 20
NAMES = [f"item {n:02d}" for n in range(ITEMS)]
RULE = GateRule()
RNG = np.random.default_rng(0)
ACTIVE = Evidence("active", NAMES, RNG.uniform(0.6, 0.9, ITEMS), RNG.uniform(0.2, 0.5, (ITEMS, BACKGROUNDS)))
NOISE = (
    RNG.normal(0, 0.1, (ITEMS, 1)) + RNG.normal(0, 0.05, (1, BACKGROUNDS)) + RNG.normal(0, 0.2, (ITEMS, BACKGROUNDS))
)


def candidate(swapped: float, clean: float = 0.0, noise: float = 0.0, name: str = "candidate") -> Evidence:
    """An encoder with so much more MAP@R than the active one's on every item, but for noise without a mean."""
    own = noise * (NOISE - NOISE.mean())
    return Evidence(name, NAMES, ACTIVE.clean + clean, ACTIVE.swapped + swapped + own)


def test_a_better_candidate_is_promoted_and_says_by_how_much() -> None:
    verdict = give_verdicts(RULE, ACTIVE, {"new": candidate(0.1, noise=1.0)})["new"]
    assert verdict.promoted and verdict.encoder_id == "candidate"
    assert verdict.swapped_difference == pytest.approx(0.1)
    assert 0.05 < verdict.swapped_bound < 0.1
    assert verdict.clean_bound is not None and verdict.spread is not None
    assert verdict.clean_difference == 0 and -0.08 < verdict.clean_bound < 0
    assert verdict.level == pytest.approx(0.05)
    assert verdict.reasons == (
        f"swapped MAP@R +0.100, at least {verdict.swapped_bound:+.3f} with 95.0% confidence: better",
        f"clean MAP@R +0.000, at least {verdict.clean_bound:+.3f} with 95.0% confidence: within the margin of 0.08",
    )
    assert verdict.spread["background"] == pytest.approx(0.05, rel=0.5)
    assert verdict.spread["clean"] == 0 and verdict.spread["clean_size"] == 1
    assert verdict.to_json() == {**asdict(verdict), "reasons": list(verdict.reasons)}
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_worse_candidate_is_refused() -> None:
    verdict = give_verdicts(RULE, ACTIVE, {"new": candidate(-0.1)})["new"]
    assert not verdict.promoted
    assert "not shown to be better" in verdict.reasons[0]


def test_a_tie_is_refused() -> None:
    verdict = give_verdicts(RULE, ACTIVE, {"same": replace(ACTIVE, encoder_id="same")})["same"]
    assert not verdict.promoted
    assert verdict.swapped_difference == verdict.swapped_bound == verdict.clean_difference == 0
    assert "not shown to be better" in verdict.reasons[0]


def test_a_gain_that_may_be_luck_is_refused() -> None:
    """0.01 on the mean with a standard error of 0.013 is not sure; a hundred times as many items would make it so."""
    assert not give_verdicts(RULE, ACTIVE, {"new": candidate(0.01, noise=1.0)})["new"].promoted
    assert give_verdicts(RULE, ACTIVE, {"new": candidate(0.01, noise=0.1)})["new"].promoted


@pytest.mark.parametrize(
    ("clean", "promoted", "told"),
    [
        (0.0, True, "within the margin of 0.08"),
        (0.2, True, "within the margin of 0.08"),
        (-0.06, False, "a loss of 0.08 (the margin) or more is not ruled out"),
        (-0.3, False, "a loss of 0.08 (the margin) or more is likely"),
    ],
)
def test_a_loss_of_the_margin_has_to_be_ruled_out(clean: float, promoted: bool, told: str) -> None:
    verdict = give_verdicts(RULE, ACTIVE, {"new": candidate(0.2, clean)})["new"]
    assert verdict.promoted == promoted and told in verdict.reasons[1]
    assert verdict.clean_difference == pytest.approx(clean)
    assert verdict.clean_bound == pytest.approx(loss_bound(np.full(ITEMS, clean), 0.95).low)
    assert give_verdicts(GateRule(margin=0.5), ACTIVE, {"new": candidate(0.2, clean)})["new"].promoted


def test_a_loss_that_is_not_seen_is_not_taken_for_none() -> None:
    """Twenty items without a difference leave open that one in ten is lost; sixty do not."""
    for count, promoted in ((20, False), (60, True)):
        few = Evidence("active", NAMES[:count], np.ones(count), np.zeros((count, BACKGROUNDS)))
        verdict = give_verdicts(RULE, few, {"new": replace(few, swapped=np.ones_like(few.swapped))})["new"]
        assert verdict.promoted == promoted and verdict.clean_difference == 0


def test_the_more_candidates_and_the_less_of_the_budget_the_surer_each_must_be() -> None:
    """Bonferroni: each of n at the level / n. The clean bound is each candidate's own."""
    new = candidate(0.06, noise=1.0)
    bounds = []
    for count, level in ((1, 0.05), (4, 0.05), (4, 0.001)):
        verdicts = give_verdicts(RULE, ACTIVE, {f"c{n}": new for n in range(count)}, level=level)
        assert len({verdict.swapped_bound for verdict in verdicts.values()}) == 1
        verdict = verdicts["c0"]
        assert verdict.level == pytest.approx(level / count)
        each = 1 - level / count
        assert verdict.swapped_bound == pytest.approx(crossed_bound(new.swapped - ACTIVE.swapped, each).low)
        assert verdict.clean_bound == pytest.approx(loss_bound(new.clean - ACTIVE.clean, 0.95).low)
        bounds.append(verdict.swapped_bound)
    assert bounds[0] > 0 > bounds[2] and bounds[0] > bounds[1] > bounds[2]


@pytest.mark.parametrize(
    ("level", "text"), [(0.05, "95.0%"), (0.0125, "98.8%"), (0.00625, "99.38%"), (0.00006, "99.9940%")]
)
def test_a_confidence_is_never_told_as_certainty(level: float, text: str) -> None:
    assert confidence_text(level) == text


def test_a_lower_confidence_lets_more_through() -> None:
    new = candidate(0.02, noise=1.0)
    assert not give_verdicts(RULE, ACTIVE, {"new": new})["new"].promoted
    assert give_verdicts(GateRule(confidence=0.6), ACTIVE, {"new": new})["new"].promoted


def test_the_best_of_the_promoted_wins_and_none_where_none_is() -> None:
    candidates = {
        "good": candidate(0.1), "better": candidate(0.2), "worse": candidate(-0.1),
        "best but loses clean photos": candidate(0.4, clean=-0.2),
    }  # fmt: skip
    verdicts = give_verdicts(RULE, ACTIVE, candidates)
    assert [name for name, verdict in verdicts.items() if verdict.promoted] == ["good", "better"]
    assert best_promoted(verdicts, candidates) == "better"
    only = {"worse": candidates["worse"]}
    assert best_promoted(give_verdicts(RULE, ACTIVE, only), only) is None
    assert give_verdicts(RULE, ACTIVE, {}) == {} and best_promoted({}, {}) is None


@pytest.mark.parametrize("names", [NAMES[::-1], NAMES[1:], [*NAMES[1:], "another"]])
def test_evidence_of_other_items_is_refused(names: list[str]) -> None:
    other = replace(candidate(0.1), products=names)
    with pytest.raises(ValueError, match="new was measured on other items than the active encoder"):
        give_verdicts(RULE, ACTIVE, {"new": other})


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


def test_evidence_of_other_backgrounds_is_refused() -> None:
    other = candidate(0.1)
    with pytest.raises(ValueError, match="new was measured on 19 backgrounds, the active encoder on 20"):
        give_verdicts(RULE, ACTIVE, {"new": replace(other, swapped=other.swapped[:, 1:])})


@pytest.mark.parametrize("shape", [(1, 20), (20, 1)])
def test_a_single_item_or_background_bounds_nothing(shape: tuple[int, int]) -> None:
    one = Evidence("one", NAMES[: shape[0]], np.ones(shape[0]), np.zeros(shape))
    verdict = give_verdicts(GateRule(margin=1.0), one, {"new": replace(one, swapped=np.ones(shape))})["new"]
    assert np.isnan(verdict.swapped_bound) and not verdict.promoted and verdict.spread == {}


@pytest.mark.parametrize("candidates", [1, 5])
def test_chance_promotes_one_time_in_twenty_at_most(candidates: int) -> None:
    """Encoders that are as good as the active one in truth, which backgrounds favour differently."""
    trials, promoted = 300, 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        difficulty = rng.normal(0, 1, (ITEMS, 1)) + rng.normal(0, 0.3, BACKGROUNDS)

        def drawn(name: str, rng: np.random.Generator = rng, difficulty: np.ndarray = difficulty) -> Evidence:
            own = rng.normal(0, 0.2, (ITEMS, 1)) + rng.normal(0, 0.3, BACKGROUNDS)
            noise = rng.normal(0, 0.5, (ITEMS, BACKGROUNDS))
            return Evidence(name, NAMES, np.ones(ITEMS), (difficulty + own + noise > 0).astype(float))

        others = {f"c{n}": drawn(f"c{n}") for n in range(candidates)}
        promoted += best_promoted(give_verdicts(GateRule(margin=1.0), drawn("active"), others), others) is not None
    assert promoted / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
