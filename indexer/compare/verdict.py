"""The verdict of a comparison in plain sentences: the best encoder, encoders that follow the background, and caveats.

The best encoder is the one with the highest swapped MAP@R. It is compared with every other one on the same products by
the permutation test of `indexer.measures.significance`, with p-values adjusted for all of these tests (Holm). A
difference is called significant only if its interval excludes 0 and p is below 0.05.
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
LITTLE = 0.3  # clean MAP@R below which retention is not informative
ALL = 0.99  # swapped MAP@R from which a set is too easy
KEEPS = 0.9  # retention that counts as high
MOSTLY = 0.5  # overtaken share above which the background matters more often than the item
READABLE = 0.5  # position between chance (0) and 1 from which a probe reads the background well


def verdict(comparison: Comparison) -> list[str]:
    """The verdict in paragraphs: `findings`, then `cautions`."""
    return [*findings(comparison), *cautions(comparison)]


def findings(comparison: Comparison) -> list[str]:
    """The best encoder, its difference to each of the others, and the encoders that follow the background."""
    best, *others = comparison.encoders.values()
    against = differences(comparison)
    level = [other.name for other in others if not is_clear(against[other.name])]
    sentences = [
        _opening(comparison, best, level, alone=not others),
        *(_beside(other, against[other.name]) for other in others),
    ]
    fuller = [other.name for other in others if _retention(other).value > _retention(best).value]
    if fuller:
        verb = "have" if len(fuller) > 1 else "has"
        sentences.append(f"{listed(fuller)} {verb} a higher retention than {best.name}, but a lower swapped MAP@R.")
    return [*sentences, _followers(comparison)]


def differences(comparison: Comparison) -> dict[str, Paired]:
    """Swapped MAP@R of the best encoder minus that of each other encoder, with adjusted p-values."""
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
    """Whether a difference is significant."""
    low, high = paired.difference.low, paired.difference.high
    return (low > 0 or high < 0) and paired.p < LEVEL


def _opening(comparison: Comparison, best: EncoderComparison, level: Sequence[str], *, alone: bool) -> str:
    figure = best.swap.figures[MAP_AT_R]
    kept = (
        f"on other backgrounds it retains {percent(figure.retention)} of its MAP@R "
        f"({number(figure.swapped.value)}, compared with {number(figure.clean.value)} on the original backgrounds"
        f"{_without(comparison)})"
    )
    if alone:
        opening = f"{best.name} is the only encoder: {kept}."
    elif level:
        opening = (
            f"No encoder is clearly the best: {best.name} has the highest swapped MAP@R, but the difference to "
            f"{listed(level)} is not significant. {best.name}: {kept}."
        )
    else:
        opening = f"{best.name} is the most robust to backgrounds: {kept}."
    if figure.retention.high < 0.5:
        opening += " This is less than half: no encoder is suitable for photos with changing backgrounds."
    return opening


def _without(comparison: Comparison) -> str:
    """The photos that the figures exclude; empty if every photo could be cut out."""
    cut = comparison.set.cut
    missing = cut.of - cut.cut
    return (
        f"; excluding the {cut.left_out:.0%} of photos, {missing} of {cut.of}, that could not be cut out"
        if missing
        else ""
    )


def _beside(other: EncoderComparison, against: Paired) -> str:
    by = against.difference
    difference = f"{number(by.value)} [{number(by.low)} {number(by.high)}], {p_value(against.p)}"
    kept = f"{other.name} retains {percent(_retention(other))}"
    if is_clear(against):
        return f"{kept}; its swapped MAP@R is lower by {difference}."
    return f"{kept}; its swapped MAP@R is not significantly lower ({difference})."


def _followers(comparison: Comparison) -> str:
    reasons = {name: _follows(encoder) for name, encoder in comparison.encoders.items()}
    followers = [f"{name} ({reason})" for name, reason in reasons.items() if reason]
    if not followers:
        return "No encoder follows the background more than the item."
    return f"Encoders that follow the background more than the item: {'; '.join(followers)}."


def _follows(encoder: EncoderComparison) -> str:
    """Why an encoder follows the background more than the item; empty if it does not."""
    background, item = encoder.shares["background"].value, encoder.shares["item"].value
    reasons = []
    if background > item:
        reasons.append(
            f"{100 * background:.0f} % of the variance is due to the background, {100 * item:.0f} % to the item"
        )
    if encoder.overtaken.low > MOSTLY:
        reasons.append(
            "another product is nearer than the same item on another background in "
            f"{100 * encoder.overtaken.value:.0f} % of cases"
        )
    return ", ".join(reasons)


def cautions(comparison: Comparison) -> list[str]:
    """Reasons why the figures may be too optimistic or not informative."""
    return [*_of_the_set(comparison), *_of_the_encoders(list(comparison.encoders.values()))]


def _of_the_set(comparison: Comparison) -> list[str]:
    made, sentences = comparison.set, []
    products = len(set(made.products))
    if products < FEW_PRODUCTS:
        sentences.append(
            f"There are few products ({products}): intervals are wide, and small differences are undetectable."
        )
    if len(made.backgrounds) < FEW_BACKGROUNDS:
        sentences.append(
            f"There are few backgrounds ({len(made.backgrounds)}): others may have larger or smaller effects."
        )
    if made.truth == "views":
        sentences.append(
            "Queries are views, that is slightly rotated and relit copies of the gallery photos: real second photos "
            "differ more, and their figures may be lower."
        )
    found = {source: count for source, count in made.mask_sources.items() if source not in GIVEN}
    if found:
        total, parts = sum(made.mask_sources.values()), listed([f"{count} by {name}" for name, count in found.items()])
        sentences.append(
            f"{sum(found.values())} of {total} masks were found automatically ({parts}): a wrong mask removes a part "
            "of the item or keeps a part of the old background."
        )
    left_out = sum(made.left_out.values())
    if left_out > len(made):
        sentences.append(
            f"More was left out ({left_out}) than used: the figures only cover items that could be cut out."
        )
    same = comparison.leaks.get("swapped_queries_that_are_clean", 0)
    if same:
        sentences.append(f"{same} swapped queries equal the clean ones: their masks cover the whole picture.")
    return sentences


def _of_the_encoders(encoders: Sequence[EncoderComparison]) -> list[str]:
    sentences = []
    for encoder in encoders:
        probe, kept = encoder.probes["background"], _retention(encoder)
        well_read = probe.chance + READABLE * (1 - probe.chance)
        is_poor = encoder.swap.figures[MAP_AT_R].clean.value < LITTLE
        if kept.value >= KEEPS and probe.score.low > well_read and not is_poor and not _follows(encoder):
            sentences.append(
                f"{encoder.name} retains {percent(kept)}, but the background can be read from its vectors: a linear "
                f"probe has an accuracy of {percent(probe.score)}, {100 * probe.chance:.0f} % by chance. Search is "
                "hardly affected, but other models trained on these vectors may be."
            )
    poor = [each.name for each in encoders if each.swap.figures[MAP_AT_R].clean.value < LITTLE]
    if poor:
        sentences.append(
            f"{listed(poor)}: MAP@R is below {LITTLE} even on the original backgrounds, so the retention is not "
            "informative."
        )
    if len(encoders) > 1 and sum(each.swap.figures[MAP_AT_R].swapped.value >= ALL for each in encoders) > 1:
        sentences.append("Several encoders find nearly everything: only a harder set can distinguish them.")
    return sentences


def _retention(encoder: EncoderComparison) -> Interval:
    return encoder.swap.figures[MAP_AT_R].retention


def percent(share: Interval) -> str:
    """`87 % [78 %, 94 %]`."""
    if np.isnan(share.value):
        return f"{DASH} %"
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f} %, {100 * share.high:.0f} %]"
