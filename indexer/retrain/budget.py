"""The error budget of a collection's held-out items, shared by all retrainings that are judged on them.

Ten retrainings with candidates that are no better, each tested at 5 %, promote one by chance in up to 40 % of cases.
All retrainings judged on mostly the same items therefore share one budget alpha (1 - confidence), of which the n-th may
spend

    level_n = alpha / (n (n + 1)) + (level_(n-1) if the previous one promoted, else 0)

The first term sums to alpha over any number of retrainings (alpha spending). Of the sequences in docs/studies/gate.md
that never end and leave most to the first retraining, this one keeps the most power from the second on. The second term
passes on the level that a promotion has used, so that real improvements cost later retrainings nothing: the online
fallback procedure (Tian and Ramdas: Online control of the familywise error rate, 2021, section 4,
https://doi.org/10.1177/0962280220983381). It keeps the probability of any false promotion at alpha under arbitrary
dependence, which is needed because the same items are used repeatedly.

The budget renews with the items: an earlier retraining counts only if more than half of the items that are held out now
were held out then. Earlier judgements are read from the stored decisions, so the budget survives restarts. A decision
of a version that stored no items counts as judged on the present items.
"""

from __future__ import annotations

from collections.abc import Sequence

from indexer.catalogue.records import RetrainRecord
from indexer.retrain.decision import Budget, Decision
from indexer.retrain.gate import GateRule

SHARED = 0.5  # an earlier retraining shares the budget if it shares more than this part of the items


def budget(
    rule: GateRule, items: Sequence[str], records: Sequence[RetrainRecord], *, number: int | None = None
) -> Budget:
    """The budget of a judgement on held-out items.

    Args:
        records: the collection's retrainings, oldest first.
        number: the retraining to judge; None for one that has not begun.
    """
    held_out = frozenset(items)
    decided = [(record.number, decision) for record in records if (decision := Decision.of(record)) is not None]
    judged = [(n, decision) for n, decision in decided if n == number or _shares_items(held_out, decision)]
    position = 1 + sum(_judgements(decision) for _, decision in judged)
    last = judged[-1][1] if judged else None
    handed_on = last.budget.level if last and last.winner is not None and last.budget else 0.0
    alpha = rule.budget
    return Budget(
        alpha=alpha,
        position=position,
        handed_on=handed_on,
        level=alpha / (position * (position + 1)) + handed_on,
        spent=alpha * (1 - 1 / position),
        earlier=tuple(n for n, _ in judged if n != number),
        judgements=1 + sum(_judgements(decision) for n, decision in judged if n == number),
    )


def describe_budget(found: Budget) -> str:
    """A budget in one line."""
    numbers = ", ".join(map(str, found.earlier))
    if not found.earlier:
        before = "no earlier retraining was judged on them"
    else:
        who = f"retraining {numbers} was" if len(found.earlier) == 1 else f"retrainings {numbers} were"
        before = f"{who} judged on them and spent {found.spent:.2g}"
    handed = f", including {found.handed_on:.2g} passed on by the last promotion" if found.handed_on else ""
    return (
        f"error budget of these held-out items: {found.alpha:.2g}; {before}; level {found.level:.2g} for this "
        f"retraining{handed}"
    )


def _shares_items(held_out: frozenset[str], decision: Decision) -> bool:
    if decision.held_out_items is None:
        return True
    return len(held_out.intersection(decision.held_out_items)) > SHARED * len(held_out)


def _judgements(decision: Decision) -> int:
    return decision.budget.judgements if decision.budget else 1
