"""The error budget of a collection's held-out items, spent over the retrainings that are judged on them.

Ten retrainings of encoders that are equal, each judged at 5 %, promote one by luck in up to 40 % of cases. So all that
are judged on mostly the same items share one budget alpha (1 - confidence), of which the n-th may spend

    level_n = alpha / (n (n + 1)) + (level_(n-1) if the one before promoted, else 0)

The first part sums to alpha over any number of retrainings (alpha spending; of such sequences this one keeps most power
over the first ten, see docs/studies/gate.md). The second hands on what a promotion has used, so that real improvements
cost later ones nothing: the online fallback procedure (Tian and Ramdas: Online control of the familywise error rate,
2021, section 4, https://doi.org/10.1177/0962280220983381), which keeps the chance of any false promotion at alpha
whatever depends on what, as it must where the same items come back.

The budget renews with the items: an earlier retraining counts only if more than half of the items that are held out now
were held out then. What was judged is read from the stored decisions, so it survives restarts; a decision of a version
that stored no items counts as judged on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from indexer.catalogue.records import RetrainRecord
from indexer.retrain.gate import GateRule

SHARED = 0.5  # of the items: more than this in common with an earlier retraining makes it one of the same budget


@dataclass(frozen=True)
class Budget:
    """What a retraining may spend.

    Args:
        alpha: of all retrainings on these items.
        position: which judgement on these items this is, from 1.
        handed_on: part of the level that the last judgement used for its promotion.
        level: chance of error that this one may spend, over all of its candidates.
        spent: what earlier ones have spent of alpha.
        earlier: numbers of the retrainings that were judged on mostly the same items.
        judgements: how often this retraining has been judged, with this one; more than once where another encoder was
            activated while it ran.
    """

    alpha: float
    position: int
    handed_on: float
    level: float
    spent: float
    earlier: tuple[int, ...]
    judgements: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def budget(
    rule: GateRule, items: Sequence[str], records: Sequence[RetrainRecord], *, number: int | None = None
) -> Budget:
    """The budget of a judgement on held-out items.

    Args:
        records: the collection's retrainings, oldest first.
        number: the retraining to be judged; None for one that is not begun.
    """
    held_out = frozenset(items)
    judged = [r for r in records if r.decision is not None and (r.number == number or _is_shared(held_out, r.decision))]
    own = [_judgements(r.decision) for r in judged if r.number == number and r.decision]
    position = 1 + sum(_judgements(r.decision) for r in judged if r.decision)
    last = judged[-1].decision if judged else None
    handed_on = float(last["budget"]["level"]) if last and last["winner"] is not None and "budget" in last else 0.0
    alpha = rule.budget
    return Budget(
        alpha=alpha,
        position=position,
        handed_on=handed_on,
        level=alpha / (position * (position + 1)) + handed_on,
        spent=alpha * (1 - 1 / position),
        earlier=tuple(r.number for r in judged if r.number != number),
        judgements=1 + sum(own),
    )


def describe_budget(found: dict[str, Any]) -> str:
    """A stored budget in a line."""
    numbers = ", ".join(map(str, found["earlier"]))
    before = {0: "no other retraining was", 1: f"retraining {numbers} was"}.get(
        len(found["earlier"]), f"retrainings {numbers} were"
    )
    handed = f", {found['handed_on']:.2g} of it handed on by the last promotion" if found["handed_on"] else ""
    return (
        f"error budget of these held-out items: {found['alpha']:.2g}; {before} judged on them, which spent "
        f"{found['spent']:.2g}; level {found['level']:.2g} for this one{handed}"
    )


def _is_shared(held_out: frozenset[str], decision: dict[str, Any]) -> bool:
    if "held_out_items" not in decision:
        return True
    return len(held_out.intersection(decision["held_out_items"])) > SHARED * len(held_out)


def _judgements(decision: dict[str, Any]) -> int:
    return int(decision.get("budget", {}).get("judgements", 1))
