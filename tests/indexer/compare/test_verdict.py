"""The verdict in words, for constructed comparisons with a known answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from indexer.compare.results import Comparison, EncoderComparison
from indexer.compare.verdict import cautions, findings, verdict
from indexer.measures.disentanglement import Probe
from indexer.measures.metrics import Bootstrap, Interval
from indexer.measures.robustness import MAP_AT_R, SwapFigure, SwapTest
from indexer.swaps.swap_set import Cut, SwapSet

ITEMS = 80
NAMES = [f"item {number:02d}" for number in range(ITEMS)]
RNG = np.random.default_rng(0)
FALLS = RNG.permutation(ITEMS)


def encoder(
    name: str, right: int, *, clean: int = ITEMS, background: float = 0.1, overtaken: float = 0.1, probe: float = 0.3
) -> EncoderComparison:
    """An encoder that finds this many of the items on other backgrounds, and on the original ones."""
    found = [np.isin(np.arange(ITEMS), FALLS[:count]).astype(float) for count in (clean, right)]
    bootstrap = Bootstrap(NAMES, replicates=200)
    figure = SwapFigure(bootstrap.share(found[0]), bootstrap.share(found[1]), bootstrap.retention(found[1], found[0]))
    swap = SwapTest({MAP_AT_R: figure}, NAMES, {MAP_AT_R: found[0]}, {MAP_AT_R: found[1]})
    shares = {"item": 0.9 - background, "background": background, "interaction": 0.1}
    none = Interval(*[float("nan")] * 3)
    return EncoderComparison(
        name, "0" * 64, "vae", 8, "cosine", swap, None, {factor: around(share) for factor, share in shares.items()}, {},
        {"background": Probe(around(probe), 0.2, "accuracy")}, none, around(0.5), around(overtaken), none, None, {},
        np.zeros(ITEMS), np.zeros(ITEMS), np.zeros((ITEMS, 5, 8), np.float32), np.zeros((ITEMS, 5, 5), np.intp),
        None, 1.0,
    )  # fmt: skip


def around(value: float) -> Interval:
    return Interval(value, value - 0.05, value + 0.05)


def comparison(*encoders: EncoderComparison, products: list[str] = NAMES, **of_set: Any) -> Comparison:
    blank = np.zeros((ITEMS, 2, 2, 3), np.uint8)
    made = SwapSet(
        "made up", "photos", NAMES, products, [None] * ITEMS, blank, blank, blank[:, None], blank,
        np.zeros(ITEMS, np.intp), blank[..., 0], ["a", "b", "c"], None, mask_sources=Counter(column=160),
    )  # fmt: skip
    ordered = sorted(encoders, key=lambda each: -each.swap.figures[MAP_AT_R].swapped.value)
    return Comparison(replace(made, **of_set), 0, {}, {each.name: each for each in ordered}, encoders[0].name)


def test_the_winner_is_named_with_what_it_keeps_and_what_it_gains() -> None:
    first, beside, followers = findings(comparison(encoder("plain", 24), encoder("robust", 76)))
    assert first.startswith("robust is the most robust to backgrounds: on other backgrounds it retains 95 % [")
    assert "of its MAP@R (0.950, compared with 1.000 on the original backgrounds)" in first
    assert beside.startswith("plain retains 30 % [") and "lower by 0.650 [" in beside and beside.endswith("p < 0.001.")
    assert followers == "No encoder follows the background more than the item."


def test_a_tie_is_called_one() -> None:
    said = findings(comparison(encoder("one", 70), encoder("two", 71), encoder("plain", 10)))
    assert said[0].startswith("No encoder is clearly the best: two has the highest swapped MAP@R")
    assert "the difference to one is not significant. two: on other backgrounds it retains 89 % [" in said[0]
    assert said[1].startswith("one retains 88 % [") and "is not significantly lower" in said[1]
    assert said[2].startswith("plain retains 12 % [") and "lower by" in said[2]


def test_equal_encoders_do_not_differ() -> None:
    assert "p = 1.000" in findings(comparison(encoder("one", 70), encoder("two", 70)))[1]


def test_a_single_encoder_wins_nothing() -> None:
    said = findings(comparison(encoder("only", 76)))
    assert said[0].startswith("only is the only encoder: ") and len(said) == 2


def test_when_all_fail_it_says_so() -> None:
    assert "less than half: no encoder is suitable" in findings(comparison(encoder("a", 20), encoder("b", 4)))[0]


def test_those_that_follow_the_background_are_named_with_the_reason() -> None:
    said = findings(comparison(encoder("good", 76), encoder("bad", 10, background=0.6, overtaken=0.8)))[-1]
    assert said == (
        "Encoders that follow the background more than the item: "
        "bad (60 % of the variance is due to the background, 30 % to the item, another product is "
        "nearer than the same item on another background in 80 % of cases)."
    )


def test_a_larger_share_of_less_is_told() -> None:
    said = findings(comparison(encoder("strong", 60), encoder("weak", 38, clean=40)))
    assert "weak has a higher retention than strong, but a lower swapped MAP@R." in said


def test_a_sound_comparison_has_no_cautions() -> None:
    sound = comparison(encoder("plain", 24), encoder("robust", 70))
    assert cautions(sound) == []
    assert verdict(sound) == findings(sound)


@pytest.mark.parametrize(
    ("of_set", "words"),
    [
        ({"products": [f"item {number % 30}" for number in range(ITEMS)]}, "few products (30): intervals are wide"),
        ({"backgrounds": ["a", "b"]}, "few backgrounds (2)"),
        ({"truth": "views"}, "real second photos differ more"),
        (
            {"mask_sources": Counter(column=100, border=40, grabcut=20)},
            "60 of 160 masks were found automatically (40 by border and 20 by grabcut)",
        ),
        (
            {"left_out": Counter({"photo without a usable mask": 90})},
            "More was left out (90) than used",
        ),
    ],
)
def test_what_weakens_the_figures_is_told(of_set: dict[str, Any], words: str) -> None:
    said = cautions(comparison(encoder("one", 70), **of_set))
    assert len(said) == 1 and words in said[0]


def test_photos_that_could_not_be_cut_out_are_told_beside_the_figure() -> None:
    said = findings(comparison(encoder("one", 70), cut=Cut(231, 341)))[0]
    assert "on the original backgrounds; excluding the 32% of photos, 110 of 341, that could not be cut out)" in said
    assert "cut out" not in findings(comparison(encoder("one", 70), cut=Cut(160, 160)))[0]


def test_queries_that_look_the_same_on_another_background_are_told() -> None:
    leaking = replace(comparison(encoder("one", 70)), leaks={"swapped_queries_that_are_clean": 3})
    assert cautions(leaking)[0].startswith("3 swapped queries equal the clean ones")


def test_a_background_that_can_be_read_is_told_of_encoders_that_keep_much_only() -> None:
    said = cautions(comparison(encoder("robust", 76, probe=0.95), encoder("plain", 10, probe=0.95)))
    assert len(said) == 1
    assert said[0].startswith("robust retains 95 % [") and "20 % by chance" in said[0]


def test_a_share_of_little_and_a_set_too_easy_are_told() -> None:
    assert cautions(comparison(encoder("good", 70), encoder("poor", 8, clean=10)))[0].startswith(
        "poor: MAP@R is below 0.3"
    )
    assert "a harder set" in cautions(comparison(encoder("a", 80), encoder("b", 80)))[0]


def test_an_encoder_that_finds_nothing_at_all_keeps_no_number() -> None:
    said = findings(comparison(encoder("good", 70), encoder("nothing", 0, clean=0)))
    assert said[1].startswith("nothing retains – %")
