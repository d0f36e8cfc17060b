"""How typical a query is of the catalogue, over HTTP and from the command line, on real homes."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from indexer.backup.backup import back_up
from indexer.backup.restore import restore
from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord
from indexer.catalogue.schema import generations
from indexer.generations.build import build_generation
from indexer.generations.manifest import TYPICALITY, load_ids
from indexer.generations.store import verify
from indexer.ingest.ingest import index_source
from indexer.ingest.promotion import activate, rollback
from indexer.ingest.repair import repair
from indexer.search.searcher import Searcher
from indexer.typicality.typicality import NEAREST, read_typicality
from service.app import create_app
from service.settings import Settings
from tests.commands import json_of, run
from tests.conftest import draw_photo, write_photos
from tests.indexer.ingest.test_repair import flip
from tests.service.conftest import Serve, ready, running
from training.files import sha256_of

ITEMS = 150
SEARCH = "/v1/collections/shop/search"


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def stripes(shift: int = 0) -> Image.Image:
    """Black and white stripes: nothing that the shop has."""
    columns = ((np.arange(96) + shift) // 12 % 2 * 255).astype(np.uint8)
    return Image.fromarray(np.tile(columns, (128, 1))).convert("RGB")


FOREIGN, TYPICAL = jpeg(stripes()), jpeg(draw_photo(1005))


@pytest.fixture(scope="module")
def large_home(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> Path:
    """A home with a collection of `ITEMS` items, and one of too few; read only."""
    folder = tmp_path_factory.mktemp("typicality")
    with Home.open(folder / "home", create=True) as home:
        for name, count in (("shop", ITEMS), ("few", 99)):
            source = write_photos(folder / name, count)
            index_source(home, name, source, encoder_ref=str(encoder_dir), processes=0)
    return folder / "home"


@pytest.fixture
def home(large_home: Path, tmp_path: Path) -> Path:
    """One that a test may write to."""
    return Path(shutil.copytree(large_home, tmp_path / "home", ignore=shutil.ignore_patterns("thumbnails")))


@pytest.fixture(scope="module")
def url(large_home: Path) -> Iterator[str]:
    with running(create_app(Settings(home=large_home, query_log=0))) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as opened:
        yield opened


def typicality(client: httpx.Client, image: bytes, collection: str = "shop", **form: Any) -> dict[str, Any] | None:
    response = client.post(f"/v1/collections/{collection}/search", files={"image": image}, data=form)
    assert response.status_code == 200, response.text
    assert response.json()["results"]
    found: dict[str, Any] | None = response.json()["typicality"]
    return found


def test_a_foreign_photo_is_flagged_and_still_gets_results(client: httpx.Client) -> None:
    foreign, typical = typicality(client, FOREIGN), typicality(client, TYPICAL)
    assert foreign == {"percentile": pytest.approx(100 / (ITEMS + 1), abs=0.01), "like_catalogue": False}
    assert typical is not None and typical["like_catalogue"] and 1 <= typical["percentile"] <= 100


def test_few_photos_of_the_same_kind_are_flagged(client: httpx.Client) -> None:
    found = [typicality(client, jpeg(draw_photo(number))) for number in range(2000, 2100)]
    percentiles = [each["percentile"] for each in found if each is not None]
    assert len(percentiles) == 100
    assert sum(value < 1 for value in percentiles) <= 5
    assert 30 < float(np.mean(percentiles)) < 70


def test_page_filter_and_reranking_do_not_change_it(client: httpx.Client) -> None:
    plain = typicality(client, TYPICAL)
    for form in ({"k": "1"}, {"k": "100"}, {"offset": "20"}, {"rerank": "expand"}, {"rerank": "reciprocal"}):
        assert typicality(client, TYPICAL, **form) == plain
    filtered = client.post(SEARCH, files={"image": TYPICAL}, data={"filter": "category=hat"}).json()
    assert filtered["total"] < ITEMS and filtered["typicality"] == plain


def test_vectors_have_it_and_items_of_the_catalogue_do_not(client: httpx.Client) -> None:
    vector = np.zeros(768)
    vector[::2] = 1.0
    found = client.post(SEARCH, json={"vector": vector.tolist()}).json()["typicality"]
    assert found["like_catalogue"] is False
    first = client.post(SEARCH, files={"image": TYPICAL}).json()["results"][0]["item_id"]
    assert client.post(SEARCH, json={"item_id": first}).json()["typicality"] is None


def test_fewer_than_100_items_have_none(client: httpx.Client, large_home: Path) -> None:
    assert typicality(client, FOREIGN, "few") is None
    with Home.open(large_home) as home:
        assert not (home.generation_directory("few", 1) / TYPICALITY).exists()
        assert verify(home, "few", 1) == []


def test_live_items_count_at_once(serve: Serve, home: Path) -> None:
    """After writes and deletions, the percentile is that of the stored model for all current items."""
    client = serve(home)
    before = typicality(client, FOREIGN)
    for number in range(NEAREST):
        photo = {"image": ("a.jpg", jpeg(stripes(number)), "image/jpeg")}
        done = client.put(f"/v1/collections/shop/items/stripes-{number}", files=photo)
        assert done.status_code in (200, 201), done.text
    assert client.delete("/v1/collections/shop/items/bag/0000.jpg").status_code in (200, 204)
    with Home.open(home) as opened:
        searcher = Searcher(opened)
        view = searcher._view("shop")
        kept = ~np.isin(view.ids[:, 1], list(view.removed))
        vectors = np.concatenate([view.index.vectors_at(np.flatnonzero(kept)), view.live_vectors])
        embedder = searcher.embedder(view.manifest.encoder_id)
        with searcher.decoded(FOREIGN, at_least=16) as image:
            query = embedder.embed(embedder.described.preprocessing.apply(image.pixels)[None])
        model = read_typicality(opened.generation_directory("shop", 1) / TYPICALITY, view.manifest.dim)
    nearest = np.sort(1 - (query @ vectors.T)[0])[:NEAREST]
    expected = model.of(query[0], float(nearest.mean()))
    after = typicality(client, FOREIGN)
    assert after is not None and before is not None
    assert after["percentile"] == pytest.approx(expected.percentile, abs=0.01)
    assert len(vectors) == ITEMS - 1 + NEAREST


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if TYPICALITY in record.getMessage()]


def loaded(client: httpx.Client) -> httpx.Client:
    """A client of a server that has loaded its collections: a search meanwhile would load them too, and warn again."""
    ready(str(client.base_url))
    return client


HARMS: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, 100),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_named_in_the_log_and_searches_go_on(
    harm: str, serve: Serve, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Home.open(home) as opened:
        path = opened.generation_directory("shop", 1) / TYPICALITY
        HARMS[harm](path)
        client = loaded(serve(home))
        for _ in range(3):
            assert typicality(client, FOREIGN) is None
        (message,) = warnings(caplog)
        assert message.startswith("searches in shop do not tell how typical a query is: ") and str(path) in message
        assert message.endswith("run `nitamono repair`")
        (problem,) = verify(opened, "shop", 1)
        assert TYPICALITY in problem
        assert repair(opened).rebuilt == {"shop": 2}
    found = (typicality(client, FOREIGN) for _ in range(1000))  # the new generation is loaded in the background
    assert next(each for each in found if each is not None)["like_catalogue"] is False


def replace_file(home: Home, number: int, content: bytes | None) -> None:
    """Write another file into a generation, with the checksums that belong to it; None removes it."""
    directory = home.generation_directory("shop", number)
    manifest = json.loads((directory / "manifest.json").read_text())
    if content is None:
        (directory / TYPICALITY).unlink()
        del manifest["sha256"][TYPICALITY]
    else:
        (directory / TYPICALITY).write_bytes(content)
        manifest["sha256"][TYPICALITY] = sha256_of(directory / TYPICALITY)
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with home.catalogue.database.engine.begin() as connection:
        connection.execute(
            sa.update(generations)
            .where(generations.c.number == number)
            .values(manifest_sha256=sha256_of(directory / "manifest.json"))
        )


def test_a_generation_of_an_earlier_version_has_none(
    serve: Serve, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Home.open(home) as opened:
        replace_file(opened, 1, None)
        assert verify(opened, "shop", 1) == []
    assert typicality(serve(home), FOREIGN) is None
    assert warnings(caplog) == []


def test_a_hostile_file_with_the_right_checksum_is_refused(
    serve: Serve, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, format=np.array(1), mean=np.array([print], dtype=object))  # unpickling runs code
    with Home.open(home) as opened:
        replace_file(opened, 1, buffer.getvalue())
    assert typicality(loaded(serve(home)), FOREIGN) is None
    (message,) = warnings(caplog)
    assert "cannot be read" in message


def test_each_generation_has_its_own_and_a_damaged_one_can_be_activated(home: Path, other_encoder_dir: Path) -> None:
    with Home.open(home) as opened:
        searcher = Searcher(opened)
        first = searcher.search_image("shop", TYPICAL).typicality
        assert first is not None
        source = write_photos(home.parent / "source", ITEMS)
        index_source(opened, "shop", source, encoder_ref=str(other_encoder_dir), processes=0)
        second = Searcher(opened).search_image("shop", TYPICAL).typicality
        assert second is not None and second != first
        flip(opened.generation_directory("shop", 1) / TYPICALITY)
        assert rollback(opened, "shop").number == 1
        page = Searcher(opened).search_image("shop", TYPICAL)
        assert page.generation == 1 and page.results and page.typicality is None
        assert repair(opened).rebuilt == {"shop": 3}


def test_a_generation_that_was_built_aside_has_it_once_activated(home: Path) -> None:
    """As a retraining builds and promotes it."""
    with Home.open(home) as opened:
        state = opened.catalogue.active_state("shop")
        record = EncoderRecord.of(opened.encoder(str(state.encoder_id)))
        built = build_generation(opened, "shop", record, activated=False)
        before = Searcher(opened).search_image("shop", FOREIGN)
        activate(opened, "shop", built.number)
        after = Searcher(opened).search_image("shop", FOREIGN)
        assert (before.generation, after.generation) == (1, 2)
        assert before.typicality == after.typicality is not None


def test_a_backup_has_it_and_names_a_damaged_one(home: Path, tmp_path: Path) -> None:
    with Home.open(home) as opened:
        report = back_up(opened, tmp_path / "backup")
        assert report.damaged == [] and any(name.endswith(TYPICALITY) for name in report.contents.files)
        flip(opened.generation_directory("shop", 1) / TYPICALITY)
        assert [Path(name).name for name in back_up(opened, tmp_path / "second").damaged] == [TYPICALITY]
    restore(tmp_path / "backup", tmp_path / "restored")
    with Home.open(tmp_path / "restored") as opened:
        found = Searcher(opened).search_image("shop", FOREIGN).typicality
        assert found is not None and not found.like_catalogue
        assert len(load_ids(opened.generation_directory("shop", 1))) == ITEMS


@pytest.mark.slow
def test_the_command_line_says_so(large_home: Path, tmp_path: Path) -> None:
    foreign, typical = tmp_path / "foreign.jpg", tmp_path / "typical.jpg"
    foreign.write_bytes(FOREIGN)
    typical.write_bytes(TYPICAL)
    words = ("search", foreign, "--home", large_home, "--collection", "shop")
    document = json_of(*words)
    assert document["typicality"] == {"percentile": pytest.approx(100 / (ITEMS + 1)), "like_catalogue": False}
    done = run(*words)
    assert len(done.stdout.splitlines()) == 10
    assert "nothing here looks like that (typicality 0.66 %); the results are the nearest" in done.stderr
    assert "nothing here" not in run("search", typical, "--home", large_home, "--collection", "shop").stderr
