"""The result of `nitamono drift`, as JSON and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from indexer.drift.statistics import ALPHA, EFFECT, MIN_SAMPLE, KlTest, Shift
from training.data.sources import SourceProblem

NEW_ITEMS, NEW_PHOTOS, QUERIES, QUERY_PHOTOS = "new items", "new photos", "recent queries", "query photos"


@dataclass(frozen=True)
class Group:
    """One group of photos compared with the reference; without measures if there are too few photos."""

    name: str
    items: int  # all items of the group
    sampled: int  # items that were compared
    measures: dict[str, Shift] = field(default_factory=dict)
    kl: KlTest | None = None

    @property
    def drifted(self) -> bool:
        return any(shift.drifted for shift in self.measures.values())

    def verdict(self, reference: int) -> str:
        """The verdict in words, given the size of the reference."""
        if not self.measures:
            few, whose = min((self.sampled, "photos"), (reference, "items of the catalogue"))
            return f"{self.name}: {few} {whose} are too few for a comparison, {MIN_SAMPLE} are needed"
        if self.drifted:
            found = ", ".join(_words(name, shift) for name, shift in self.measures.items() if shift.drifted)
            advice = "retrain with photos like these" if self.name in (QUERIES, QUERY_PHOTOS) else "retrain"
            return f"{self.name}: {found}: {advice}"
        if self.kl is not None and self.kl.changed:
            mix = f"KL {self.kl.nats:.2f} nats, {self.kl.usual:.2f} for resamples of the catalogue"
            return (
                f"{self.name}: the distribution differs from the catalogue's ({mix}), but each photo resembles photos "
                "in the catalogue: keep the encoder"
            )
        return f"{self.name}: no drift: keep the encoder"

    def to_json(self, reference: int) -> dict[str, Any]:
        kl = None if self.kl is None else {**self.kl._asdict(), "changed": self.kl.changed}
        measures = {name: shift._asdict() for name, shift in self.measures.items()}
        counts = {"items": self.items, "sampled": self.sampled, "enough": bool(self.measures)}
        return {**counts, "drifted": self.drifted, "verdict": self.verdict(reference), "measures": measures, "kl": kl}


@dataclass(frozen=True)
class DriftReport:
    """The comparison of all groups.

    Args:
        since: when the encoder was activated for the first time.
        reference, sampled: number of items from before that time, and of those that were used.
    """

    collection: str
    generation: int
    encoder_id: str
    since: datetime
    reference: int
    sampled: int
    groups: list[Group]
    rejected: list[SourceProblem]
    notes: list[str]

    @property
    def drifted(self) -> bool:
        return any(group.drifted for group in self.groups)

    @property
    def verdict(self) -> str:
        return "; ".join(group.verdict(self.sampled) for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "generation": self.generation,
            "encoder_id": self.encoder_id,
            "in_service_since": self.since.isoformat(),
            "drifted": self.drifted,
            "verdict": self.verdict,
            "reference": {"items": self.reference, "sampled": self.sampled},
            "thresholds": {"alpha": ALPHA, "auc": EFFECT, "items": MIN_SAMPLE},
            "groups": {group.name: group.to_json(self.sampled) for group in self.groups},
            "rejected": [asdict(problem) for problem in self.rejected],
            "notes": self.notes,
        }

    def to_text(self) -> str:
        before = f"reference of {self.reference} items, {self.sampled} sampled"
        lines = [f"encoder {self.encoder_id[:12]}, active since {self.since:%Y-%m-%d %H:%M} UTC: {before}"]
        for group in self.groups:
            lines.append(f"{group.name}: {group.items}, {group.sampled} sampled")
            for name, s in group.measures.items():
                medians = f"median {s.median:.4g}, catalogue {s.reference_median:.4g}"
                lines.append(f"  {name:<21s} AUC {s.auc:.3f}  p {s.adjusted:.1e}  {medians}{'  *' * s.drifted}")
            if group.kl is not None:
                lines.append(f"  {'KL':<21s} {group.kl.nats:.3f} nats  p {group.kl.p:.3f}  usual {group.kl.usual:.3f}")
        return "\n".join([*lines, self.verdict])


def _words(name: str, shift: Shift) -> str:
    if name == "reconstruction_error":
        times = "higher than" if shift.ratio is None else f"{shift.ratio:.1f} times"
        return f"reconstruction error is {times} the catalogue's"
    what = {"nearest_item": "the nearest item is farther away", "surprise": "the vector is less likely"}[name]
    return f"{what} than the catalogue's median for {shift.above:.0%} of them"
