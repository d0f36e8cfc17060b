"""Drift, end to end: a drawn shop in a real home, a shipped encoder, and deliveries that are like it or are not."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from indexer.catalogue.home import Home
from indexer.drift.measure import DriftRequest, measure_drift
from indexer.drift.report import Group
from indexer.errors import InvalidRequestError, NotFoundError
from indexer.ingest.ingest import index_source
from service.cli import main
from training.console import Progress
from training.data.studio.catalogue import write_catalogue

pytestmark = pytest.mark.slow

NEW_KINDS = ("bowl", "stool")
KINDS = 11
OF_EACH = 12
STOCK = 80  # of the 108 items of the other kinds are in the catalogue
ENCODER = "robust-vae-small-64"
SILENT = Progress(lambda count: None, lambda count: None)
Rows = list[dict[str, str]]


class Shop(NamedTuple):
    """A folder of photos, and what its items are for: the catalogue, others of its kinds, and kinds that it has not."""

    folder: Path
    stock: Rows
    alike: Rows
    other_kinds: Rows

    def manifest(self, name: str, rows: Iterable[dict[str, str]]) -> Path:
        rows = list(rows)
        path = self.folder / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    def in_other_light(self, rows: Rows) -> Rows:
        """The same photos by a studio with dim, warm lamps."""
        made = []
        for row in rows:
            pixels = np.asarray(Image.open(self.folder / row["image"])) * np.array([0.85, 0.62, 0.4])
            name = f"images/warm-{row['item_id']}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(self.folder / name)
            made.append({**row, "item_id": f"warm-{row['item_id']}", "image": name})
        return made


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("drift") / "shop"
    drawn = write_catalogue(
        folder, items=KINDS * OF_EACH, photos_per_item=1, seed=3, size=64, stock="solids", processes=0
    )
    with drawn.open(newline="") as file:
        rows = [{name: row[name] for name in ("item_id", "image", "category")} for row in csv.DictReader(file)]
    known = [row for row in rows if row["category"] not in NEW_KINDS]
    return Shop(folder, known[:STOCK], known[STOCK:], [row for row in rows if row["category"] in NEW_KINDS])


@pytest.fixture(scope="module")
def indexed(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the shop's stock; read only."""
    path = tmp_path_factory.mktemp("drift-home") / "home"
    with Home.open(path, create=True) as home:
        index_source(home, "shop", shop.manifest("stock", shop.stock), encoder_ref=ENCODER, processes=0)
    return path


@pytest.fixture
def own_home(indexed: Path, tmp_path: Path) -> Path:
    """One that a test may write to."""
    return Path(shutil.copytree(indexed, tmp_path / "home"))


def drift_of(path: Path, name: str, **request: Any) -> Group:
    with Home.open(path) as home:
        report = measure_drift(home, "shop", DriftRequest(**request), SILENT, processes=0)
    assert [group.name for group in report.groups] == [name]
    assert (report.reference, report.sampled) == (STOCK, STOCK)
    return report.groups[0]


def test_other_items_of_the_same_kinds_stay_quiet(indexed: Path, shop: Shop) -> None:
    found = drift_of(indexed, "new photos", new=shop.manifest("alike", shop.alike))
    assert set(found.measures) == {"reconstruction_error", "nearest_item", "surprise"}
    assert not found.drifted
    assert found.verdict(STOCK) == "new photos: no drift: keep the encoder"


@pytest.mark.parametrize("seed", range(3))
def test_photos_of_the_catalogue_itself_stay_quiet(indexed: Path, shop: Shop, seed: int) -> None:
    """None of them has itself for its nearest item, by name or, under another name, by content."""
    rows = [shop.stock[n] for n in np.random.default_rng(seed).permutation(STOCK)[:40]]
    renamed = [{**row, "item_id": f"again-{row['item_id']}"} for row in rows]
    found = [
        drift_of(indexed, "new photos", new=shop.manifest(f"again-{n}", given))
        for n, given in enumerate((rows, renamed))
    ]
    assert not any(group.drifted for group in found)
    for group in found:
        assert 0.3 < group.measures["nearest_item"].auc < 0.7
    assert found[0].sampled == 40


def test_kinds_that_the_catalogue_never_had_are_flagged(indexed: Path, shop: Shop) -> None:
    found = drift_of(indexed, "new photos", new=shop.manifest("kinds", shop.other_kinds))
    assert found.drifted
    assert found.measures["nearest_item"].drifted
    assert found.measures["nearest_item"].auc > 0.65
    assert found.kl is not None
    assert found.kl.p < 0.05
    assert "the nearest item is farther away than the catalogue's median for" in found.verdict(STOCK)
    assert found.verdict(STOCK).endswith(": retrain")


def test_another_photo_studio_is_flagged(indexed: Path, shop: Shop) -> None:
    found = drift_of(indexed, "query photos", queries=shop.manifest("warm", shop.in_other_light(shop.alike)))
    assert found.measures["reconstruction_error"].drifted
    assert found.measures["reconstruction_error"].auc > 0.7
    assert "times the catalogue's" in found.verdict(STOCK)
    assert found.verdict(STOCK).endswith(": retrain with photos like these")


def test_too_few_photos_are_said_to_be_too_few(indexed: Path, shop: Shop) -> None:
    found = drift_of(indexed, "new photos", new=shop.manifest("few", shop.other_kinds[:19]))
    assert not found.drifted
    assert found.verdict(STOCK) == "new photos: 19 photos are too few for a comparison, 20 are needed"
    assert found.to_json(STOCK)["enough"] is False


def test_items_that_came_later_are_new_and_so_are_those_since_a_date(own_home: Path, shop: Shop) -> None:
    began = datetime.now(UTC)
    with Home.open(own_home) as home:
        index_source(home, "shop", shop.manifest("later", shop.other_kinds), processes=0)
    found = drift_of(own_home, "new items")
    assert found.items == found.sampled == len(shop.other_kinds)
    assert found.drifted
    assert drift_of(own_home, "new items", since=began).measures == found.measures
    with Home.open(own_home) as home, pytest.raises(InvalidRequestError, match="nothing to compare"):
        measure_drift(home, "shop", DriftRequest(since=datetime.now(UTC)), SILENT)
    with Home.open(own_home) as home:
        early = measure_drift(home, "shop", DriftRequest(since=began - timedelta(days=1)), SILENT, processes=0)
    assert early.reference == 0
    assert "0 items of the catalogue are too few for a comparison" in early.verdict


def test_logged_queries_are_compared_each_photo_once_and_only_those_of_the_encoder(own_home: Path, shop: Shop) -> None:
    with Home.open(own_home) as home:
        index_source(home, "other", shop.manifest("asked", shop.other_kinds), encoder_ref=ENCODER, processes=0)
        state = home.catalogue.search_state("other")
        collection, encoder = home.catalogue.collection_id("shop"), str(state.encoder_id)
        photos = home.catalogue.vectors.photos(state.collection_id, encoder)
        queries = [(datetime.now(UTC), photo.vector) for photo in photos]
        home.catalogue.queries.add(collection, encoder, queries * 2, keep=1000)
        index_source(home, "third", shop.manifest("third", shop.alike[:3]), encoder_ref="pixels", processes=0)
        foreign = str(home.catalogue.search_state("third").encoder_id)
        home.catalogue.queries.add(collection, foreign, queries, keep=1000)
    found = drift_of(own_home, "recent queries")
    assert found.items == found.sampled == len(photos)
    assert "reconstruction_error" not in found.measures
    assert found.measures["nearest_item"].drifted


def test_nothing_to_compare_and_nothing_indexed_are_clear_errors(indexed: Path, own_home: Path) -> None:
    with Home.open(indexed) as home:
        with pytest.raises(InvalidRequestError, match="give --new SOURCE or --queries SOURCE"):
            measure_drift(home, "shop", DriftRequest(), SILENT)
        with pytest.raises(NotFoundError, match="no collection 'absent'"):
            measure_drift(home, "absent", DriftRequest(), SILENT)
    with Home.open(own_home) as home:
        home.catalogue.ensure_collection("empty")
        with pytest.raises(NotFoundError, match="has no index yet"):
            measure_drift(home, "empty", DriftRequest(), SILENT)


@pytest.fixture
def call(indexed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*arguments: str) -> tuple[int, str, str]:
        command = ["nitamono", "drift", "--collection", "shop", "--home", str(indexed), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run


def test_the_command_gives_every_figure_and_lists_bad_photos(
    call: Callable[..., Any], shop: Shop, indexed: Path
) -> None:
    (shop.folder / "images/broken.jpg").write_bytes(b"no photo")
    broken = [{**shop.alike[0], "item_id": "broken", "image": "images/broken.jpg"}]
    missing = [{**shop.alike[0], "item_id": "missing", "image": "images/missing.jpg"}]
    source = shop.manifest("bad", [*shop.other_kinds, *broken, *missing])
    status, out, err = call("--new", str(source), "--seed", "1", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["drifted"] is True
    assert len(document["rejected"]) == 2
    assert "2 photos could not be read" in err
    group = document["groups"]["new photos"]
    assert (group["items"], group["sampled"], group["enough"]) == (26, 24, True)
    assert group["measures"]["nearest_item"].keys() >= {"auc", "p", "adjusted", "median", "ratio", "above", "drifted"}
    assert group["kl"].keys() == {"nats", "usual", "limit", "p", "dimensions", "sample", "changed"}
    assert document["thresholds"] == {"alpha": 0.01, "auc": 0.6, "items": 20}
    assert json.loads(call("--new", str(source), "--seed", "1", "--json")[1]) == document
    stored = json.loads((indexed / "drift" / "shop.json").read_text())
    assert {name: value for name, value in stored.items() if name != "measured_at"} == document


def test_the_command_answers_in_words_and_within_its_limit(call: Callable[..., Any], shop: Shop) -> None:
    status, out, _ = call("--new", str(shop.manifest("words", shop.other_kinds)), "--limit", "22")
    assert status == 0
    assert "new photos: 24, 22 sampled" in out
    assert out.splitlines()[-1].startswith("new photos: ")
    status, _, err = call("--since", "last week")
    assert status == 1
    assert err == "nitamono: since 'last week' must be an ISO date such as 2026-01-31\n"
