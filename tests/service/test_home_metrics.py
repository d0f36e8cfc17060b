"""Metrics of the home: what a scrape reports about catalogue, index, disk, drift and retrainings."""

from __future__ import annotations

import json
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from indexer.catalogue.home import Home
from service import home_metrics
from service.auth import create_key
from service.home_metrics import HomeMetrics
from tests.indexer.search.pages import jpeg
from tests.service.conftest import ITEMS, Serve, bearer

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
Values = dict[tuple[str, ...], float]


def parsed(text: str) -> dict[str, Values]:
    """By name of the sample: values by labels, in order of the labels' names."""
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def scrape(home: Home) -> dict[str, Values]:
    return parsed(HomeMetrics(home).render().decode())


def test_a_scrape_counts_what_is_in_the_home(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    assert client.put("/v1/collections/shop/items/late", files={"image": jpeg(70)}).status_code == 201
    found = parsed(client.get("/metrics").text)
    assert found["nitamono_catalogue_up"] == {(): 1.0}
    assert found["nitamono_items"] == {("shop",): ITEMS + 1}
    (listed,) = client.get("/v1/collections").json()["collections"]
    assert found["nitamono_images"] == {("shop", "ok"): listed["images"], ("shop", "rejected"): listed["rejected"]}
    assert found["nitamono_index_vectors"] == {("shop",): listed["images"] - 1}
    assert found["nitamono_index_live_items"] == {("shop",): 1.0}
    assert 0.9 <= found["nitamono_index_recall_at_10"][("shop",)] <= 1
    with Home.open(home_copy) as home:
        (generation,) = home.catalogue.generations.all("shop")
    created = found["nitamono_index_created_timestamp_seconds"][("shop",)]
    assert created == pytest.approx(generation.created_at.timestamp())
    usage = shutil.disk_usage(home_copy)
    assert found["nitamono_home_disk_total_bytes"] == {(): usage.total}
    assert found["nitamono_home_disk_free_bytes"][()] == pytest.approx(usage.free, rel=0.05)
    assert found["nitamono_catalogue_bytes"][()] == pytest.approx(
        (home_copy / "catalogue.sqlite").stat().st_size, abs=2e6
    )
    assert "nitamono_drift" not in found


def test_retrainings_and_the_last_drift_report_are_reported(home_copy: Path) -> None:
    with Home.open(home_copy) as home:
        shop = home.catalogue.collection_id("shop")
        for status in ("refused", "refused", "promoted"):
            number = home.catalogue.retrains.add(shop, {})
            home.catalogue.retrains.end(shop, number, status, None)  # type: ignore[arg-type]
        home.catalogue.retrains.add(shop, {})
        report = {
            "collection": "shop", "measured_at": "2026-11-30T12:00:00+00:00",
            "groups": {"new items": {"drifted": True}, "queries": {"drifted": False}},
        }  # fmt: skip
        home.drift_file("shop").parent.mkdir()
        home.drift_file("shop").write_text(json.dumps(report))
        found = scrape(home)
    assert found["nitamono_retrainings"] == {("shop", "refused"): 2, ("shop", "promoted"): 1, ("shop", "running"): 1}
    assert set(found["nitamono_retraining_ended_timestamp_seconds"]) == {("shop", "promoted")}
    assert found["nitamono_drift"] == {("shop", "new items"): 1, ("shop", "queries"): 0}
    assert found["nitamono_drift_measured_timestamp_seconds"] == {("shop",): 1796040000}


def test_a_catalogue_that_cannot_be_read_is_reported_as_down(home_copy: Path) -> None:
    with Home.open(home_copy) as home:
        home.catalogue.database.engine.dispose()
        (home_copy / "catalogue.sqlite").rename(home_copy / "moved")
        for name in ("catalogue.sqlite-wal", "catalogue.sqlite-shm"):
            (home_copy / name).unlink(missing_ok=True)
        found = scrape(home)
    assert found["nitamono_catalogue_up"] == {(): 0.0}
    assert "nitamono_items" not in found and "nitamono_home_disk_free_bytes" in found


def test_a_scrape_reads_the_catalogue_at_most_every_few_seconds(
    home_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Home.open(home_copy) as home:
        metrics = HomeMetrics(home)
        first = metrics.render()
        home.catalogue.ensure_collection("another")
        assert metrics.render() == first
        monkeypatch.setattr(home_metrics, "REFRESH", 0.0)
        for _ in range(1000):
            if b'nitamono_items{collection="another"}' in metrics.render():
                break
            time.sleep(0.01)
        else:
            pytest.fail("the new collection never appeared")
        monkeypatch.undo()
        with metrics._lock:  # the last collection has ended
            pass


def test_dashboard_and_alerts_use_metrics_that_exist(serve: Serve, home_copy: Path) -> None:
    with Home.open(home_copy) as home:
        shop = home.catalogue.collection_id("shop")
        home.catalogue.retrains.end(shop, home.catalogue.retrains.add(shop, {}), "refused", None)
        home.drift_file("shop").parent.mkdir()
        report = {"collection": "shop", "measured_at": "2026-11-30T12:00:00+00:00", "groups": {"q": {"drifted": True}}}
        home.drift_file("shop").write_text(json.dumps(report))
        key = create_key(home.catalogue, "monitor", "read", datetime.now(UTC) + timedelta(days=90))
    client = serve(home_copy)
    assert client.post("/v1/collections/shop/search", files={"image": jpeg(1)}).status_code == 200
    known = set(parsed(client.get("/metrics", headers=bearer(key)).text))
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for rule in alerts]
    used = {name for text in expressions for name in re.findall(r"nitamono_[a-z0-9_]+", text)}
    assert len(used) > 12
    assert used <= known
