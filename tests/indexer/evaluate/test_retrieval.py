"""`evaluate_retrieval` end to end: relevance, leakage, ties, files, and the report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pytest
from PIL import Image

from indexer.catalogue.records import Rerank, SearchState
from indexer.errors import InvalidRequestError
from indexer.evaluate.images import GalleryVectors
from indexer.evaluate.report import write_report
from indexer.evaluate.reranked import reranked
from indexer.evaluate.results import HEADLINE, KNN, Evaluation
from indexer.evaluate.retrieval import BASELINES, evaluate_retrieval
from indexer.generations.manifest import Manifest
from indexer.measures.metrics import score_blocks
from indexer.measures.relevance import QrelsRelevance, make_relevance, read_qrels
from indexer.search.intact import LoadedFiles
from indexer.search.second_stage import second_stage
from indexer.search.view import ItemRows, View
from indexer.vectors.faiss import FaissIndex
from indexer.vectors.neighbours import nearest_others
from indexer.vectors.rerank import K1
from tests.conftest import draw_photo, write_photos
from training.data.decode import decode_image
from training.data.sources import SourceImage, read_images
from training.errors import SourceError
from training.reference import Metric


def images(folder: Path) -> list[SourceImage]:
    return read_images(folder)[0]


class Resources(HTMLParser):
    """Collects what a page would ask the network for."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data") and not str(value).startswith("data:"):
                self.outside.append(f"{tag} {name}={value}")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SourceImage], list[SourceImage]]:
    folder = tmp_path_factory.mktemp("evaluate")
    gallery = write_photos(folder / "gallery", 24)
    queries = write_photos(folder / "queries", 9, start=100)
    return images(gallery), images(queries)


@pytest.fixture(scope="module")
def evaluation(sets: tuple[list[SourceImage], list[SourceImage]], encoder_dir: Path) -> Evaluation:
    return evaluate_retrieval(*sets, "category", [str(encoder_dir)], replicates=200)


def test_the_json_has_every_figure_with_its_interval_and_the_baselines(
    evaluation: Evaluation, encoder_dir: Path
) -> None:
    document = json.loads(json.dumps(evaluation.to_json()))
    assert list(document["encoders"]) == [str(encoder_dir), *BASELINES]
    for figures in document["encoders"].values():
        for name in (*HEADLINE, KNN):
            low, high = figures[name]["ci"]
            assert 0 <= low <= figures[name]["value"] <= high <= 1
        assert set(figures["per_category"]) == {"bag", "hat", "mug"}
        assert len(figures["encoder_id"]) == 64
    assert (document["queries"], document["gallery"], document["queries_without_relevant"]) == (9, 24, 0)
    assert set(HEADLINE) <= set(document["encoders"]["hog"]["difference_to_first"])
    assert all(name in evaluation.to_text() for name in (*BASELINES, *HEADLINE, KNN))


def test_figures_equal_a_plain_computation_for_one_encoder(
    evaluation: Evaluation, sets: tuple[list[SourceImage], list[SourceImage]], encoder_dir: Path
) -> None:
    from training.encoder import load_encoder

    encoder = load_encoder(encoder_dir)

    def embed(image: SourceImage) -> np.ndarray:
        pixels = encoder.preprocessing.apply(
            decode_image(image.path.read_bytes(), at_least=encoder.preprocessing.size).pixels
        )
        return encoder.encode(encoder.prepare(pixels.transpose(1, 2, 0))[None]).numpy()[0]

    gallery = [(image.category, embed(image)) for image in sets[0]]
    precisions = []
    for query in sets[1]:
        ranked = sorted(gallery, key=lambda entry: -float(entry[1] @ embed(query)))
        precisions.append(np.mean([category == query.category for category, _ in ranked[:5]]))
    found = evaluation.encoders[str(encoder_dir)].intervals["precision@5"].value
    assert found == pytest.approx(float(np.mean(precisions)))


def test_queries_taken_from_the_gallery_do_not_find_themselves(
    sets: tuple[list[SourceImage], list[SourceImage]], encoder_dir: Path
) -> None:
    gallery, _ = sets
    found = evaluate_retrieval(gallery, gallery, "category", [str(encoder_dir)], baselines=False, replicates=10)
    assert found.identical == len(gallery)
    for row, places in enumerate(found.encoders[str(encoder_dir)].top):
        assert row not in places[:7]


def test_by_item_id_a_query_needs_another_photo_of_its_item(tmp_path: Path, encoder_dir: Path) -> None:
    folder = write_photos(tmp_path / "s", 3, categories=("x",))
    draw_photo(0, (90, 120)).save(folder / "x/again.jpg")
    (folder / "g.csv").write_text("item_id,image\na,x/0000.jpg\nb,x/0001.jpg\na,x/again.jpg\n")
    (folder / "q.csv").write_text("item_id,image\na,x/0000.jpg\nb,x/0001.jpg\nc,x/0002.jpg\n")
    found = evaluate_retrieval(
        images(folder / "g.csv"), images(folder / "q.csv"), "item_id", [str(encoder_dir)], baselines=False
    )
    assert (found.without_relevant, found.identical) == (2, 2)
    assert found.encoders[str(encoder_dir)].intervals["hit@1"].value == 1
    assert KNN not in found.encoders[str(encoder_dir)].intervals


def test_a_gallery_whose_vectors_are_not_kept_gives_the_same_figures(
    evaluation: Evaluation,
    sets: tuple[list[SourceImage], list[SourceImage]],
    encoder_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.evaluate.images.KEPT_NUMBERS", 0)
    monkeypatch.setattr("indexer.evaluate.images.CHUNK", 7)
    found = evaluate_retrieval(*sets, "category", [str(encoder_dir)], replicates=200, baselines=False)
    assert found.encoders[str(encoder_dir)].intervals == evaluation.encoders[str(encoder_dir)].intervals


@pytest.mark.parametrize("rerank", ["expand", "reciprocal"])
def test_a_second_stage_is_measured_beside_the_plain_search(
    sets: tuple[list[SourceImage], list[SourceImage]], encoder_dir: Path, rerank: Rerank
) -> None:
    name = str(encoder_dir)
    found = evaluate_retrieval(
        *sets, "category", [name], baselines=False, reranks=("none", rerank, rerank), replicates=50
    ).encoders
    assert list(found) == [name, f"{name} + {rerank}"]
    plain, second = found.values()
    assert (plain.top != second.top).any()
    difference = second.intervals["map"].value - plain.intervals["map"].value
    assert second.difference["map"].value == pytest.approx(difference)


@pytest.mark.parametrize("rerank", ["expand", "reciprocal"])
def test_with_a_second_stage_queries_do_not_find_themselves_either(
    sets: tuple[list[SourceImage], list[SourceImage]], encoder_dir: Path, rerank: Rerank
) -> None:
    gallery, _ = sets
    (found,) = evaluate_retrieval(
        gallery, gallery[:9], "category", [str(encoder_dir)], baselines=False, reranks=(rerank,), replicates=50
    ).encoders.values()
    assert all(row not in top for row, top in enumerate(found.top.tolist()))
    assert (found.top != found.top[0]).any()


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_evaluation_ranks_as_a_search_does(metric: Metric) -> None:
    """Of a catalogue with one photo an item, the first `DEPTH` of it; the rest stay below in their order."""
    rng = np.random.default_rng(0)
    gallery = (rng.normal(size=(20, 6)).repeat(10, axis=0) + 0.6 * rng.normal(size=(200, 6))).astype(np.float32)
    queries = gallery[::40] + 0.1 * rng.normal(size=(5, 6)).astype(np.float32)
    if metric == "cosine":
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    index = FaissIndex.exact(gallery, metric)
    view = View(
        state=SearchState(1, 1, "e", 0, 0),
        manifest=Manifest("c", 1, "e", 6, metric, 200, "Flat", 1.0, 0, {}),
        index=index,
        ids=np.stack([np.arange(200)] * 2, axis=1),
        rows=ItemRows.of(np.arange(200)),
        removed=frozenset(),
        live_ids=np.empty((0, 2), np.int64),
        live_vectors=np.empty((0, 6), np.float32),
        calibration=None,
        lists=nearest_others(index, gallery, K1),
        files=LoadedFiles(Path("none"), lambda: None),
    )
    everything = view.subset(None)
    kept = cast(GalleryVectors, Kept(gallery, metric))
    for rerank in get_args(Rerank):
        for block, scores in reranked(kept, queries, {}, metric, rerank):
            for query, row in zip(queries[block], scores, strict=True):
                found = second_stage(view, query[None], 200, everything, None, rerank, everything)
                assert np.argsort(-row, kind="stable").tolist() == [hit.pk for hit in found]


@dataclass
class Kept:
    """The part of `GalleryVectors` that is used of vectors in memory."""

    kept: np.ndarray
    metric: Metric

    def scored(self, queries: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        return score_blocks(queries, self.kept, self.metric)


def test_an_encoder_that_sees_nothing_scores_chance_whatever_the_file_order(tmp_path: Path) -> None:
    """All pictures are white, so all scores are equal; the gallery is sorted by class."""
    rows = ["item_id,image,category"]
    for number in range(200):
        Image.new("RGB", (8, 8), "white").resize((8 + number, 9)).save(tmp_path / f"{number}.png")
        rows.append(f"i{number},{number}.png,{'first' if number < 100 else 'second'}")
    (tmp_path / "g.csv").write_text("\n".join(rows[:1] + rows[1:]))
    for number in range(40):
        Image.new("RGB", (9, 10 + number), "white").save(tmp_path / f"q{number}.png")
    queries = "\n".join(f"q{n},q{n}.png,{'first' if n % 2 else 'second'}" for n in range(40))
    (tmp_path / "q.csv").write_text("item_id,image,category\n" + queries)
    found = evaluate_retrieval(
        images(tmp_path / "g.csv"), images(tmp_path / "q.csv"), "category", ["pixels"], baselines=False
    )
    result = found.encoders["pixels"].intervals
    assert 0.3 <= result["precision@10"].value <= 0.7
    assert 0.4 <= result["map"].value <= 0.6


def test_unreadable_files_are_left_out_and_listed(
    tmp_path: Path, sets: tuple[list[SourceImage], list[SourceImage]], encoder_dir: Path
) -> None:
    shutil.copytree(sets[1][0].path.parents[1], tmp_path / "q")
    (tmp_path / "q/bag/bad.jpg").write_text("bad")
    found = evaluate_retrieval(sets[0], images(tmp_path / "q"), "category", [str(encoder_dir)], baselines=False)
    assert len(found.queries) == 9
    assert [(problem.item_id, "text" in problem.reason) for problem in found.rejected] == [("bag/bad.jpg", True)]


@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        ("attribute:colour", "no image of the queries has 'colour'; known attributes: category"),
        ("nonsense", "expected category, item_id, attribute:NAME or a FILE.qrels"),
    ],
)
def test_an_unknown_relevance_says_what_there_is(
    relevance: str, message: str, sets: tuple[list[SourceImage], list[SourceImage]]
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        evaluate_retrieval(*sets, relevance, ["pixels"])


def test_an_empty_side_is_refused(sets: tuple[list[SourceImage], list[SourceImage]]) -> None:
    with pytest.raises(InvalidRequestError, match="no images in the gallery"):
        evaluate_retrieval([], sets[1], "category", ["pixels"])


def test_qrels_grade_by_item(tmp_path: Path, sets: tuple[list[SourceImage], list[SourceImage]]) -> None:
    gallery, queries = sets
    path = tmp_path / "judged.qrels"
    path.write_text(f"{queries[0].item_id} 0 {gallery[3].item_id} 2\n\n{queries[0].item_id} 0 {gallery[5].item_id} 0\n")
    judged = make_relevance(str(path), queries, gallery)
    assert isinstance(judged, QrelsRelevance)
    gains = judged.gains(slice(0, 2))
    assert gains.sum() == 2 and gains[0, 3] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 0 b\n", "line 1: expected `query_item 0 gallery_item grade`"),
        ("a 0 b 1\na 0 b high\n", "line 2: expected"),
        ("a 0 b 1\na 0 b 1\n", "line 2: 'a' and 'b' are listed twice"),
        ("a 0 b nan\n", "line 1: grade 'nan' is not a number"),
        ("\n", "contains no judgements"),
    ],
)
def test_bad_qrels_name_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.qrels"
    path.write_text(text)
    with pytest.raises(SourceError, match=message) as error:
        read_qrels(path)
    assert "bad.qrels" in str(error.value)


def test_the_report_opens_offline_and_shows_every_encoder(evaluation: Evaluation, tmp_path: Path) -> None:
    html = write_report(evaluation, tmp_path / "report.html").read_text()
    asked = Resources()
    asked.feed(html)
    assert asked.outside == []
    for name in evaluation.encoders:
        assert f"<summary>{name}</summary>" in html
    shown = re.findall(r'alt="Query ([^"]+)"', html)
    assert set(shown) <= {query.item_id for query in evaluation.queries}
    assert len(shown) == 2 * 4 * len(evaluation.encoders)


def test_the_report_escapes_what_users_wrote(tmp_path: Path, encoder_dir: Path) -> None:
    folder = write_photos(tmp_path / "s", 4, categories=("x",))
    name = "<script>alert(1)</script>"
    rows = "\n".join(f'"{name}{n}",x/000{n}.jpg,{name}' for n in range(4))
    (folder / "g.csv").write_text("item_id,image,category\n" + rows)
    source = images(folder / "g.csv")
    found = evaluate_retrieval(source, source, "category", [str(encoder_dir)], baselines=False)
    html = write_report(found, tmp_path / "r.html").read_text()
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html
