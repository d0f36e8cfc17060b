"""Prometheus metrics of the home: catalogue, index, disk, drift and retraining; read at most every `REFRESH` s."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from indexer.catalogue.home import Home
from indexer.catalogue.records import CollectionRecord, RetrainRecord
from training.errors import NitamonoError

REFRESH = 15.0  # seconds; counting the rows of a large catalogue takes longer than a scrape should


class HomeMetrics:
    """Collects the metrics of a home; a scrape reads what was collected last and starts the next collection."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._collected_at = float("-inf")
        self._text = b""

    def render(self) -> bytes:
        """The metrics in Prometheus text format; only the first call waits for them."""
        if not self._text:
            self._collect()
        elif time.monotonic() - self._collected_at > REFRESH and self._lock.acquire(blocking=False):
            threading.Thread(target=self._collect_and_release, name="home-metrics", daemon=True).start()
        return self._text

    def _collect_and_release(self) -> None:
        try:
            self._collect()
        finally:
            self._lock.release()

    def _collect(self) -> None:
        registry = CollectorRegistry()
        registry.register(_Families(list(self._families())))
        self._text = generate_latest(registry)
        self._collected_at = time.monotonic()

    def _families(self) -> Iterator[GaugeMetricFamily]:
        yield from self._disk()
        is_up = GaugeMetricFamily("nitamono_catalogue_up", "1 if the catalogue can be read")
        try:
            known = self._home.catalogue.collections.all()
            families = [*self._catalogue(known), *self._keys(), *self._retraining(known), *self._drift(known)]
            is_up.add_metric([], 1)
        except NitamonoError:
            families = []
            is_up.add_metric([], 0)
        yield is_up
        yield from families

    def _disk(self) -> Iterator[GaugeMetricFamily]:
        usage = shutil.disk_usage(self._home.path)
        yield _gauge("nitamono_home_disk_free_bytes", "Free space of the home's file system", [], [((), usage.free)])
        yield _gauge("nitamono_home_disk_total_bytes", "Size of the home's file system", [], [((), usage.total)])

    def _catalogue(self, known: Sequence[CollectionRecord]) -> Iterator[GaugeMetricFamily]:
        catalogue = self._home.catalogue
        live = catalogue.active_generations()
        active = [record for record, _ in live]
        size = catalogue.database.size()
        yield _gauge("nitamono_catalogue_bytes", "Size of the catalogue's database", [], [((), size)])
        one = ["collection"]
        yield _gauge("nitamono_items", "Items", one, [((c.name,), c.items) for c in known])
        images = [((c.name, "ok"), c.images) for c in known] + [((c.name, "rejected"), c.rejected) for c in known]
        yield _gauge("nitamono_images", "Images by status", ["collection", "status"], images)
        yield _gauge(
            "nitamono_index_vectors", "Vectors in the active index", one, [((g.collection,), g.count) for g in active]
        )
        yield _gauge(
            "nitamono_index_recall_at_10", "recall@10 of the active index against exact search",
            one, [((g.collection,), g.recall_at_10) for g in active],
        )  # fmt: skip
        yield _gauge(
            "nitamono_index_created_timestamp_seconds", "Time when the active index was built",
            one, [((g.collection,), _seconds(g.created_at)) for g in active],
        )  # fmt: skip
        yield _gauge(
            "nitamono_index_live_items",
            "Items changed since the active index was built",
            one,
            [((g.collection,), count) for g, count in live],
        )

    def _keys(self) -> Iterator[GaugeMetricFamily]:
        expiring = [
            ((key.name,), _seconds(key.expires_at))
            for key in self._home.catalogue.keys.all()
            if key.expires_at is not None and key.revoked_at is None
        ]
        yield _gauge("nitamono_api_key_expires_timestamp_seconds", "Time when an API key expires", ["key"], expiring)

    def _retraining(self, known: Sequence[CollectionRecord]) -> Iterator[GaugeMetricFamily]:
        counts: dict[tuple[str, ...], float] = {}
        last: list[RetrainRecord] = []
        for collection in known:
            records = self._home.catalogue.retrains.all(collection.name)
            for record in records:
                key = (collection.name, record.status)
                counts[key] = counts.get(key, 0) + 1
            last += [record for record in records if record.ended_at is not None][-1:]
        yield _gauge("nitamono_retrainings", "Retrainings by outcome", ["collection", "status"], counts.items())
        yield _gauge(
            "nitamono_retraining_ended_timestamp_seconds", "Time when the last retraining ended, by its outcome",
            ["collection", "status"],
            [((r.collection, r.status), _seconds(r.ended_at)) for r in last if r.ended_at is not None],
        )  # fmt: skip

    def _drift(self, known: Sequence[CollectionRecord]) -> Iterator[GaugeMetricFamily]:
        reports = [report for c in known if (report := self._report(c.name))]
        yield _gauge(
            "nitamono_drift", "1 if the last `nitamono drift` found drift in this group", ["collection", "group"],
            [((r["collection"], name), g["drifted"]) for r in reports for name, g in r["groups"].items()],
        )  # fmt: skip
        yield _gauge(
            "nitamono_drift_measured_timestamp_seconds", "Time of the last `nitamono drift`", ["collection"],
            [((r["collection"],), datetime.fromisoformat(r["measured_at"]).timestamp()) for r in reports],
        )  # fmt: skip

    def _report(self, collection: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._home.drift_file(collection).read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return None


class _Families:
    """A collector of families that are known already."""

    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> list[GaugeMetricFamily]:
        return self._families


def _gauge(
    name: str, documentation: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for label_values, value in values:
        family.add_metric(list(label_values), float(value))
    return family


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
