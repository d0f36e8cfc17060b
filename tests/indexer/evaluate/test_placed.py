"""The queries of an evaluation, put anywhere in a frame."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.evaluate.placed import place_queries
from indexer.evaluate.report import write_report
from indexer.evaluate.results import Evaluation
from indexer.evaluate.retrieval import evaluate_retrieval
from indexer.swaps.placement import GROUNDS, PER_GROUND
from service.cli import main
from training.data.sources import SourceImage, read_images
from training.preprocessing import Preprocessing

ITEMS = 12
WITHOUT_MASK = 3


def write_item(path: Path, number: int, shift: int) -> None:
    """A rectangle of coloured patches on white."""
    rng = np.random.default_rng(number)
    patches = Image.fromarray(rng.integers(0, 180, (3, 3, 3), dtype=np.uint8)).resize(
        (60, 50), Image.Resampling.NEAREST
    )
    picture = Image.new("RGB", (96, 96), "white")
    picture.paste(patches, (16 + shift, 22))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SourceImage], list[SourceImage]]:
    """Galleries and queries of 12 items; three queries are noise all over, of which no item can be cut out."""
    folder = tmp_path_factory.mktemp("placed")
    for part, shift in (("gallery", 0), ("queries", 2)):
        rows = ["item_id,image,category"]
        for number in range(ITEMS):
            write_item(folder / part / f"{number}.png", number, shift)
            rows.append(f"i{number:02d},{number}.png,c{number % 3}")
        (folder / part / "list.csv").write_text("\n".join(rows) + "\n")
    for number in range(WITHOUT_MASK):
        noise = np.random.default_rng(number).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "queries" / f"{number}.png")
    return read_images(folder / "gallery/list.csv")[0], read_images(folder / "queries/list.csv")[0]


@pytest.fixture(scope="module")
def evaluation(sets: tuple[list[SourceImage], list[SourceImage]]) -> Evaluation:
    return evaluate_retrieval(
        *sets, "item_id", ["hog", "pixels"], baselines=False, place=True, replicates=50, processes=0
    )


def test_queries_that_can_be_cut_out_are_placed_and_the_others_counted(evaluation: Evaluation) -> None:
    document = json.loads(json.dumps(evaluation.to_json()))["encoders"]
    for found in document.values():
        placement = found["placement"]
        assert placement["items"] == ITEMS - WITHOUT_MASK
        assert placement["left_out"] == {"photo without a usable mask": WITHOUT_MASK}
        for ground in GROUNDS:
            assert list(placement[ground]) == ["precision@1", "map@r"]
    assert document["hog"]["placement"]["difference_to_first"] == {}
    assert len(document["pixels"]["placement"]["difference_to_first"]) == 4
    assert document["pixels"]["placement"]["white"]["precision@1"]["middle"]["value"] == 1.0
    assert document["pixels"]["placement"]["white"]["precision@1"]["anywhere"]["value"] < 0.7


def test_rows_are_those_of_the_queries(sets: tuple[list[SourceImage], list[SourceImage]]) -> None:
    _, queries = sets
    placed = place_queries(queries, [0, 4, 7, 9], Preprocessing(32), 0, processes=0)
    assert placed.rows.tolist() == [4, 7, 9] and placed.items == ["i04", "i07", "i09"]
    assert next(placed.blocks()).shape == (3, len(GROUNDS), PER_GROUND, 128, 128, 3)
    assert len(place_queries(queries, [3, 4, 7, 9], Preprocessing(32), 0, limit=2, processes=0)) == 2
    assert len(place_queries(queries, [], Preprocessing(32), 0, processes=0)) == 0


def test_a_gallery_photo_with_the_querys_bytes_is_taken_out(
    sets: tuple[list[SourceImage], list[SourceImage]],
) -> None:
    """Each query is in the gallery, and one photo of another item of its category is all that is left to find."""
    gallery, _ = sets
    found = evaluate_retrieval(
        gallery[:6], gallery[:6], "category", ["pixels"], baselines=False, place=True, replicates=20, processes=0
    )
    test = found.encoders["pixels"].placement
    assert test is not None and len(test.queries) == 6 and found.identical == 6
    assert test.figures["white"]["precision@1"].middle.value < 1.0, "the photo itself would be right"


def test_nothing_is_placed_unless_it_is_asked_for_or_where_no_mask_is_usable(
    sets: tuple[list[SourceImage], list[SourceImage]],
) -> None:
    gallery, queries = sets
    plain = evaluate_retrieval(gallery, queries, "item_id", ["pixels"], baselines=False, replicates=20, processes=0)
    assert plain.encoders["pixels"].placement is None and "scale and place" not in plain.to_text()
    none = evaluate_retrieval(
        gallery, queries[:WITHOUT_MASK], "item_id", ["pixels"], baselines=False, place=True, replicates=20, processes=0
    )
    assert none.encoders["pixels"].placement is None
    assert none.notes == ["no placement figures: no query with relevant images can be cut out of its photo"]


def test_text_and_report_have_them(evaluation: Evaluation, tmp_path: Path) -> None:
    assert f"precision@1 of {ITEMS - WITHOUT_MASK} items by scale and place" in evaluation.to_text()
    html = write_report(evaluation, tmp_path / "report.html").read_text()
    assert "precision@1 by scale and place, on white" in html and "Differences to hog by placement" in html


def test_the_command_places_queries_when_asked(
    sets: tuple[list[SourceImage], list[SourceImage]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gallery, queries = (str(images[0].path.parent / "list.csv") for images in sets)
    arguments = ["--gallery", gallery, "--queries", queries, "--relevance", "item_id", "--encoder", "pixels"]
    for more, items in (([], None), (["--place"], ITEMS - WITHOUT_MASK)):
        monkeypatch.setattr(sys, "argv", ["nitamono", "evaluate", *arguments, "--no-baselines", "--json", *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        placement = json.loads(capsys.readouterr().out)["encoders"]["pixels"]["placement"]
        assert (placement and placement["items"]) == items
