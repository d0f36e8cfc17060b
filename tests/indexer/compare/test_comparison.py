"""Comparisons of encoders: whole, in order, honest about leaks, and no more than the measures themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.compare.comparison import BASELINES, MOST_UNITS, compare_encoders, measure_swaps
from indexer.compare.results import Comparison, describe
from indexer.errors import InvalidRequestError
from indexer.evaluate.images import embed_pictures
from indexer.measures.disentanglement import disentanglement, linear_probe
from indexer.measures.metrics import Bootstrap
from indexer.measures.robustness import LabelledVectors, background_gap, displacement, lure_rate, swap_test
from indexer.measures.significance import holm, paired_test
from indexer.measures.variance import variance_shares
from indexer.swaps.sources import studio_set
from indexer.swaps.swap_set import CategoryBackgrounds, Donated, SwapSet
from service.cli import main
from training.encoder import load_encoder
from training.errors import EncoderError

pytestmark = pytest.mark.slow

REPLICATES = 100
SEED = 5


@pytest.fixture(scope="module")
def made(drawn: SwapSet) -> SwapSet:
    """The drawn set, with two categories of four items, and two of the items one product."""
    donors = np.array([1, 2, 3, 0, 5, 6, 7, 4]), np.array([4, 5, 1, 2, 0, 1, 5, 6])
    parts = CategoryBackgrounds(np.arange(8), *(Donated(drawn.swapped[places, 0], places) for places in donors))
    products = [*drawn.items[:7], drawn.items[0]]
    return replace(drawn, categories=["a"] * 4 + ["b"] * 4, by_category=parts, products=products)


@pytest.fixture(scope="module")
def comparison(made: SwapSet, encoder_dir: Path) -> Comparison:
    return compare_encoders(made, [str(encoder_dir)], baselines=True, replicates=REPLICATES, seed=SEED)


def test_every_encoder_has_every_measure_in_the_json(comparison: Comparison, made: SwapSet, encoder_dir: Path) -> None:
    document = json.loads(json.dumps(comparison.to_json()))
    assert document["set"] == made.name and document["items"] == 8 and document["products"] == 7
    assert document["truth"] == "photos" and document["backgrounds"] == made.backgrounds
    assert document["seed"] == SEED and document["masks"] == {"column": 16} and document["left_out"] == {}
    assert document["mask_kind"] == "given" and document["share_left_out"] == 0
    assert all(each["share_left_out"] == 0 and each["mask_kind"] == "given" for each in document["encoders"].values())
    assert document["leaks"] == dict.fromkeys(made.leaks(), 0)
    assert document["first"] == str(encoder_dir)
    assert set(document["encoders"]) == {str(encoder_dir), *BASELINES}
    for name, found in document["encoders"].items():
        encoder = load_encoder(name)
        assert (found["encoder_id"], found["family"]) == (encoder.encoder_id, encoder.family)
        assert (found["dim"], found["metric"]) == (encoder.dim, encoder.metric)
        assert list(found["swap"]) == ["recall@1", "recall@5", "recall@10", "map@r"]
        assert all(list(figure) == ["clean", "swapped", "retention"] for figure in found["swap"].values())
        assert list(found["background_gap"]) == ["same", "random", "gap"]
        assert list(found["shares"]) == ["item", "background", "interaction"]
        assert list(found["known_shares"]) == ["item", "background", "pose", "light", "interaction"]
        assert list(found["probes"]) == ["background", "category", "item"]
        if encoder.dim <= MOST_UNITS:
            assert set(found["disentanglement"]) == {"mig", "dci", "probes"}
        else:
            assert found["disentanglement"] is None
        figures = [found[name] for name in ("lure_rate", "displacement", "attention_score")]
        figures += [*found["shares"].values(), *found["known_shares"].values(), *found["swap"]["map@r"].values()]
        for figure in figures:
            low, high = figure["ci"]
            assert np.isfinite([figure["value"], low, high]).all() and low <= high
        assert found["seconds"] > 0


def test_encoders_come_in_the_order_of_their_swapped_figure_and_differ_from_the_first_named(
    comparison: Comparison, encoder_dir: Path
) -> None:
    swapped = [found.swap.figures["map@r"].swapped.value for found in comparison.encoders.values()]
    assert swapped == sorted(swapped, reverse=True)
    assert comparison.encoders[str(encoder_dir)].versus == {}
    for name in BASELINES:
        assert list(comparison.encoders[name].versus) == [
            "clean map@r", "swapped map@r", "swapped recall@1", "displacement", "attention score",
        ]  # fmt: skip
    lines = comparison.to_text().splitlines()
    assert lines[0] == describe(comparison.set) and "1 merged with others because of near-duplicate photos" in lines[0]
    assert [line.split()[0] for line in lines[2 : 2 + len(comparison.encoders)]] == list(comparison.encoders)


def test_the_first_named_is_what_others_are_set_against_wherever_it_ranks(comparison: Comparison) -> None:
    names = list(comparison.encoders)[::-1]
    plain = replace(comparison.set, factorial=None, factor_photos=None)
    found = compare_encoders(plain, names, replicates=10, seed=SEED)
    assert found.first == names[0] and list(found.encoders) == names[::-1]
    assert [name for name, encoder in found.encoders.items() if not encoder.versus] == [names[0]]


def test_differences_are_those_of_the_paired_test_and_hold_together(comparison: Comparison, encoder_dir: Path) -> None:
    base, other = comparison.encoders[str(encoder_dir)], comparison.encoders["hog"]
    by_product = Bootstrap(base.swap.items, replicates=REPLICATES, seed=SEED)
    by_item = Bootstrap(comparison.set.items, replicates=REPLICATES, seed=SEED)
    assert len(base.swap.items) == 7
    tests = {
        "clean map@r": paired_test(
            other.swap.clean["map@r"], base.swap.clean["map@r"], by_product, of_shares=True, seed=SEED
        ),
        "swapped map@r": paired_test(
            other.swap.swapped["map@r"], base.swap.swapped["map@r"], by_product, of_shares=True, seed=SEED
        ),
        "swapped recall@1": paired_test(
            other.swap.swapped["recall@1"], base.swap.swapped["recall@1"], by_product, of_shares=True, seed=SEED
        ),
        "displacement": paired_test(other.displacements, base.displacements, by_item, seed=SEED),
        "attention score": paired_test(other.attentions, base.attentions, by_item, seed=SEED),
    }
    adjusted = holm({name: test.p for name, test in tests.items()})
    assert {name: paired.difference for name, paired in other.versus.items()} == {
        name: test.difference for name, test in tests.items()
    }
    assert {name: paired.p for name, paired in other.versus.items()} == adjusted
    gain = other.swap.figures["map@r"].swapped.value - base.swap.figures["map@r"].swapped.value
    assert other.versus["swapped map@r"].difference.value == pytest.approx(gain)


def test_the_measures_of_an_encoder_are_those_of_the_pure_functions(
    comparison: Comparison, made: SwapSet, encoder_dir: Path
) -> None:
    encoder = load_encoder(encoder_dir)
    found = comparison.encoders[str(encoder_dir)]
    gallery, clean, swapped, lures = (
        np.stack([encoder.encode(encoder.prepare(picture)[None]).numpy()[0] for picture in pictures])
        for pictures in (made.gallery, made.clean, made.swapped.reshape(-1, 48, 48, 3), made.lures)
    )
    z = swapped.reshape(8, 4, -1)
    np.testing.assert_allclose(found.vectors, z, atol=1e-6)
    by_item = Bootstrap(made.items, replicates=REPLICATES, seed=SEED)
    swap = swap_test(
        LabelledVectors(gallery, made.products), LabelledVectors(clean, made.products),
        LabelledVectors(swapped, np.repeat(made.products, 4).tolist()), "cosine", replicates=REPLICATES, seed=SEED,
    )  # fmt: skip
    for name, figure in swap.figures.items():
        for own, pure in zip(found.swap.figures[name], figure, strict=True):
            assert own == pytest.approx(pure)
    for of_shares, shown, names in (
        (found.shares, z, ("item", "background")),
        (found.known_shares, embed_pictures(encoder, made.factorial.pictures), made.factorial.names),  # type: ignore[union-attr]
    ):
        for name, share in variance_shares(shown, names, replicates=REPLICATES, seed=SEED).items():
            assert of_shares[name] == pytest.approx(share, abs=1e-5)
    moved = displacement(z, made.products)
    np.testing.assert_allclose(found.displacements, moved.ratio, rtol=1e-4)
    assert found.displacement == pytest.approx(by_item.interval(moved.ratio), rel=1e-4)
    assert found.overtaken == pytest.approx(by_item.share(moved.overtaken), rel=1e-4)
    rate = lure_rate(z, lures, made.lure_backgrounds, "cosine", k=10, bootstrap=by_item)
    assert found.lure == pytest.approx(rate)
    items, backgrounds = np.repeat(made.items, 4), np.tile(np.arange(4), 8)
    assert found.probes["background"] == linear_probe(z.reshape(32, -1), backgrounds, items, seed=SEED)
    item = linear_probe(z.reshape(32, -1), items, items, seed=SEED, split=backgrounds >= 2)
    assert found.probes["item"] == item and item.chance == 1 / 8
    assert made.by_category is not None and made.factor_photos is not None
    same, other = (
        (embed_pictures(encoder, d.pictures), d.donors) for d in (made.by_category.same, made.by_category.random)
    )
    labels = [str(category) for category in made.categories]
    assert found.gap == background_gap(gallery, same, other, labels, "cosine", bootstrap=by_item)
    factors = disentanglement(
        embed_pictures(encoder, made.factor_photos.pictures), made.factor_photos.factors, made.factor_photos.items,
        seed=SEED,
    )  # fmt: skip
    assert found.disentanglement is not None
    assert found.disentanglement.mig.mean == pytest.approx(factors.mig.mean)
    for row in range(8):
        for background in range(4):
            nearest = np.argsort(-(gallery @ z[row, background]), kind="stable")[:5]
            assert found.top[row, background].tolist() == nearest.tolist()


def test_a_promotion_is_decided_on_the_same_measures(comparison: Comparison, made: SwapSet, encoder_dir: Path) -> None:
    found = comparison.encoders[str(encoder_dir)]
    measures = measure_swaps(load_encoder(encoder_dir), made, replicates=REPLICATES, seed=SEED)
    assert measures.swap.figures == found.swap.figures
    assert measures.shares == found.shares and measures.displacement == found.displacement


def test_queries_in_the_gallery_and_no_encoder_are_refused(made: SwapSet, encoder_dir: Path) -> None:
    gallery = made.gallery.copy()
    gallery[2] = made.clean[5]
    with pytest.raises(InvalidRequestError, match="queries are in the gallery .*'clean_queries_in_gallery': 1"):
        compare_encoders(replace(made, gallery=gallery), [str(encoder_dir)])
    gallery[2] = made.swapped[1, 1]
    with pytest.raises(InvalidRequestError, match="'swapped_queries_in_gallery': 1"):
        compare_encoders(replace(made, gallery=gallery), [str(encoder_dir)])
    with pytest.raises(InvalidRequestError, match="no encoder is given; give one or more with --encoder REF"):
        compare_encoders(made, [])
    with pytest.raises(EncoderError, match="absent"):
        compare_encoders(made, ["absent"])


def test_an_encoder_named_twice_is_compared_once_and_progress_is_told(drawn: SwapSet, encoder_dir: Path) -> None:
    told: list[tuple[str, int]] = []
    plain = replace(drawn, factorial=None, factor_photos=None, categories=[None] * 8, by_category=None)
    found = compare_encoders(
        plain, [str(encoder_dir), str(encoder_dir)], replicates=10, seed=SEED,
        started=lambda total: told.append(("started", total)), advance=lambda count: told.append(("done", count)),
    ).encoders  # fmt: skip
    assert list(found) == [str(encoder_dir)] and told == [("started", 1), ("done", 1)]
    only = found[str(encoder_dir)]
    assert only.gap is None and only.known_shares == {} and only.disentanglement is None
    assert list(only.probes) == ["background", "item"], "there are no categories to tell"
    assert only.to_json()["background_gap"] is only.to_json()["disentanglement"] is None
    assert only.reconstructions is None, "pixels have no decoder"


# --- the command


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `nitamono compare` with small drawn sets without known factors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("indexer.swaps.sources.studio_set", partial(studio_set, side=32, factors=False))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nitamono", "compare", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run


def test_the_command_compares_on_drawn_items(call: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = call(
        "--studio", "shop", "--items", "8", "--per-item", "2", "--encoder", "pixels", "--no-baselines", "--json"
    )
    assert status == 0, err
    document = json.loads(out)
    assert document["items"] == 8 and len(document["backgrounds"]) == 2 and document["first"] == "pixels"
    assert list(document["encoders"]) == ["pixels"]
    assert document["encoders"]["pixels"]["difference_to_first"] == {}
    assert document["encoders"]["pixels"]["placement"]["items"] == 8


def test_the_command_compares_on_photos_and_writes_figures_beside_the_report(
    call: Callable[..., tuple[int, str, str]], encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[Comparison, Path]] = []
    monkeypatch.setattr("indexer.compare.report.write_comparison", lambda found, path: reported.append((found, path)))
    folder = tmp_path / "shop"
    folder.mkdir()
    for number in range(8):
        picture = Image.new("RGB", (64, 64), "white")
        colour = tuple(np.random.default_rng(number).integers(0, 200, 3).tolist())
        picture.paste(colour, (16, 10 + number, 48, 40 + 2 * number))
        picture.save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no photo")
    status, out, err = call(
        "--data",
        "shop",
        str(encoder_dir),
        "--no-baselines",
        "--no-placement",
        "--per-item",
        "2",
        "--report",
        "out.html",
    )
    assert status == 0, err
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["encoders"][str(encoder_dir)]["placement"] is None
    assert document["truth"] == "views" and document["left_out"] == {"photo cannot be read": 1}
    assert "shop: 8 items on 2 backgrounds; ground truth: a photo of each item and a random view of it" in out
    assert [path for _, path in reported] == [Path("out.html")]
    assert list(document["encoders"]) == list(reported[0][0].encoders) == [str(encoder_dir)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --data SOURCE or --studio shop|solids"),
        (("--data", ".", "--studio", "shop"), "give either --data SOURCE or --studio shop|solids"),
        (("--studio", "garage"), "stock must be one of shop, solids, not 'garage'"),
        (("--data", "absent"), "absent: no such folder or manifest"),
        (("--studio", "shop", "--backgrounds", "absent"), "backgrounds absent: no such folder"),
        (("--studio", "shop", "--encoder", "nothing"), "nothing"),
        (("--studio", "shop", "--report", "."), "is a directory; give the path of a file"),
        (("--studio", "shop", "--masks", "mine"), "masks must be all or given, not 'mine'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    call: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], message: str
) -> None:
    encoder = () if "nothing" in arguments else ("--encoder", "pixels")
    status, out, err = call(*arguments, *encoder, "--items", "8")
    assert status == 1 and out == ""
    assert message in err and err.count("\n") == 1, err


def test_too_few_photos_are_one_line(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (64, 64), "white").save(tmp_path / f"{number}.png")
    status, _, err = call("--data", ".", "--encoder", "pixels")
    assert status == 1 and "0 items can be cut out of their photos, 8 are needed" in err
    assert "3 times photo without a usable mask" in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--items", "7"), ("--per-item", "1"), ("--seed", "-1")])
def test_numbers_out_of_range_are_usage_errors(
    call: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...]
) -> None:
    assert call("--studio", "shop", *arguments)[0] == 2


def test_nothing_of_the_set_or_the_measures_depends_on_the_clock(made: SwapSet, encoder_dir: Path) -> None:
    plain = replace(made, factor_photos=None)
    documents: list[dict[str, Any]] = []
    for _ in range(2):
        document = compare_encoders(plain, [str(encoder_dir)], replicates=20, seed=SEED).to_json()
        document["encoders"][str(encoder_dir)].pop("seconds")
        documents.append(document)
    assert json.dumps(documents[0]) == json.dumps(documents[1])
