"""What a comparison of encoders says, in plain words: which holds the item, which follow the background, what to mind.

The best encoder is that with the highest swapped MAP@R. It is set against every other one on the same products, by the
permutation test of `indexer.measures.significance`, with p-values adjusted for as many tests (Holm); a difference is
told as such only where its interval leaves out 0 and p is below 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from indexer.measures.metrics import Bootstrap, Interval
from indexer.measures.robustness import MAP_AT_R
from indexer.measures.significance import Paired, holm, paired_test
from indexer.reports.html import DASH, listed, number, p_value
from indexer.swaps.swap_set import GIVEN

if TYPE_CHECKING:
    from indexer.compare.results import Comparison, EncoderComparison

LEVEL = 0.05
FEW_PRODUCTS = 50
FEW_BACKGROUNDS = 3
LITTLE = 0.3  # MAP@R on the photos' own backgrounds of which it says little how much is kept
ALL = 0.99
KEEPS = 0.9  # retention that is high
MOSTLY = 0.5  # share overtaken above which the background decides more often than the item
READABLE = 0.5  # share of the way from chance to 1 at which a probe reads the background well


def verdict(comparison: Comparison) -> list[str]:
    """All there is to say, in paragraphs: `findings`, then `cautions`."""
    return [*findings(comparison), *cautions(comparison)]


def findings(comparison: Comparison) -> list[str]:
    """The best encoder, each of the others beside it, and those that follow the background."""
    best, *others = comparison.encoders.values()
    against = differences(comparison)
    level = [other.name for other in others if not is_clear(against[other.name])]
    said = [
        _opening(comparison, best, level, alone=not others),
        *(_beside(other, against[other.name]) for other in others),
    ]
    fuller = [other.name for other in others if _retention(other).value > _retention(best).value]
    if fuller:
        verb = "keep" if len(fuller) > 1 else "keeps"
        said.append(f"{listed(fuller)} {verb} a larger share than {best.name}, but of less.")
    return [*said, _followers(comparison)]


def differences(comparison: Comparison) -> dict[str, Paired]:
    """The best encoder's swapped MAP@R minus that of each other, with adjusted p-values."""
    best, *others = comparison.encoders.values()
    bootstrap = Bootstrap(best.swap.items, seed=comparison.seed)
    own = best.swap.swapped[MAP_AT_R]
    tests = {
        other.name: paired_test(own, other.swap.swapped[MAP_AT_R], bootstrap, of_shares=True, seed=comparison.seed)
        for other in others
    }
    adjusted = holm({name: test.p for name, test in tests.items()})
    return {name: Paired(test.difference, adjusted[name]) for name, test in tests.items()}


def is_clear(paired: Paired) -> bool:
    """Whether a difference is more than luck."""
    low, high = paired.difference.low, paired.difference.high
    return (low > 0 or high < 0) and paired.p < LEVEL


def _opening(comparison: Comparison, best: EncoderComparison, level: Sequence[str], *, alone: bool) -> str:
    figure = best.swap.figures[MAP_AT_R]
    kept = (
        f"on other backgrounds it keeps {percent(figure.retention)} of its retrieval "
        f"(MAP@R {number(figure.swapped.value)} after {number(figure.clean.value)} on the photos' own"
        f"{_without(comparison)})"
    )
    if alone:
        opening = f"{best.name} is the only encoder here: {kept}."
    elif level:
        opening = (
            f"No encoder is clearly the best: {best.name} has the highest figure, but there is no clear difference to "
            f"{listed(level)}. Of {best.name}: {kept}."
        )
    else:
        opening = f"{best.name} holds the item best: {kept}."
    if figure.retention.high < 0.5:
        opening += " That is less than half: none of them is fit for photos whose backgrounds change."
    return opening


def _without(comparison: Comparison) -> str:
    """What the figures do not speak of; nothing where every photo could be cut out."""
    cut = comparison.set.cut
    missing = cut.of - cut.cut
    return (
        f"; without the {cut.left_out:.0%} of photos, {missing} of {cut.of}, that could not be cut out"
        if missing
        else ""
    )


def _beside(other: EncoderComparison, against: Paired) -> str:
    by = against.difference
    told = f"{number(by.value)} [{number(by.low)} {number(by.high)}], {p_value(against.p)}"
    if is_clear(against):
        return f"{other.name} keeps {percent(_retention(other))}; its MAP@R there is lower by {told}."
    return f"{other.name} keeps {percent(_retention(other))}; no clear difference in MAP@R there ({told})."


def _followers(comparison: Comparison) -> str:
    reasons = {name: _follows(encoder) for name, encoder in comparison.encoders.items()}
    told = [f"{name} ({reason})" for name, reason in reasons.items() if reason]
    if not told:
        return "None of them follows the background more than the item."
    return f"These follow the background more than the item: {'; '.join(told)}."


def _follows(encoder: EncoderComparison) -> str:
    """Why an encoder's vectors are of the background rather than of the item; empty where they are not."""
    background, item = encoder.shares["background"].value, encoder.shares["item"].value
    reasons = []
    if background > item:
        reasons.append(
            f"{100 * background:.0f} % of the variation is of the background, {100 * item:.0f} % of the item"
        )
    if encoder.overtaken.low > MOSTLY:
        reasons.append(
            f"another product is nearer than the item on another background {100 * encoder.overtaken.value:.0f} % of "
            "the time"
        )
    return ", ".join(reasons)


def cautions(comparison: Comparison) -> list[str]:
    """Why the figures may promise too much, or tell too little."""
    return [*_of_the_set(comparison), *_of_the_encoders(list(comparison.encoders.values()))]


def _of_the_set(comparison: Comparison) -> list[str]:
    made, said = comparison.set, []
    products = len(set(made.products))
    if products < FEW_PRODUCTS:
        said.append(f"There are few items ({products}): the intervals are wide, and small differences cannot be told.")
    if len(made.backgrounds) < FEW_BACKGROUNDS:
        said.append(f"There are few backgrounds ({len(made.backgrounds)}): others may do more, or less.")
    if made.truth == "views":
        said.append(
            "The same item is told by views, one photo turned and lit a little differently: real second photos differ "
            "more, and figures of them may be lower."
        )
    found = {source: count for source, count in made.mask_sources.items() if source not in GIVEN}
    if found:
        total, parts = sum(made.mask_sources.values()), listed([f"{count} by {name}" for name, count in found.items()])
        said.append(
            f"{sum(found.values())} of {total} masks were found, not given ({parts}): where one is wrong, a part of "
            "the item is missing, or of the old background left."
        )
    left_out = sum(made.left_out.values())
    if left_out > len(made):
        said.append(f"More was left out ({left_out}) than there are items: the figures are of what could be cut out.")
    same = comparison.leaks.get("swapped_queries_that_are_clean", 0)
    if same:
        said.append(f"{same} queries look the same on another background: their masks leave no room for one.")
    return said


def _of_the_encoders(encoders: Sequence[EncoderComparison]) -> list[str]:
    said = []
    for encoder in encoders:
        probe, kept = encoder.probes["background"], _retention(encoder)
        well_read = probe.chance + READABLE * (1 - probe.chance)
        is_poor = encoder.swap.figures[MAP_AT_R].clean.value < LITTLE
        if kept.value >= KEEPS and probe.score.low > well_read and not is_poor and not _follows(encoder):
            said.append(
                f"{encoder.name} keeps {percent(kept)}, and still the background can be read from its vectors: a "
                f"linear probe is right {percent(probe.score)} of the time, {100 * probe.chance:.0f} % by chance. The "
                "search hardly heeds it; something else that is trained on these vectors might."
            )
    poor = [each.name for each in encoders if each.swap.figures[MAP_AT_R].clean.value < LITTLE]
    if poor:
        said.append(
            f"{listed(poor)}: MAP@R is below {LITTLE} even on the photos' own backgrounds, so the share that is kept "
            "says little."
        )
    if len(encoders) > 1 and sum(each.swap.figures[MAP_AT_R].swapped.value >= ALL for each in encoders) > 1:
        said.append("Several encoders find nearly everything: a harder set would tell them apart.")
    return said


def _retention(encoder: EncoderComparison) -> Interval:
    return encoder.swap.figures[MAP_AT_R].retention


def percent(share: Interval) -> str:
    """`87 % [78 %, 94 %]`."""
    if np.isnan(share.value):
        return f"{DASH} %"
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f} %, {100 * share.high:.0f} %]"
