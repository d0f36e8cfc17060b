"""The ONNX file of an encoder, which its id does not cover: compared with the weights, kept, and brought back."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from indexer.catalogue.home import Home
from indexer.errors import CorruptError, MismatchError
from indexer.ingest.ingest import index_source
from indexer.ingest.repair import repair
from indexer.search.searcher import Searcher
from tests.conftest import write_photos
from tests.training.models.families import as_encoder, build
from training.card import amend_card
from training.onnx.export import add_onnx
from training.reference import describe_encoder

PROGRAM = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
sys.argv = ["nitamono", *sys.argv[1:]]
from service.cli import main
try:
    main()
finally:
    print("opened", sum(name.endswith("encoder.onnx") for name in opened), file=sys.stderr)
"""
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "shop", 4)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An encoder of one's own, without an ONNX file."""
    return as_encoder(build("ae"), "ae").save(tmp_path / "encoder")


@pytest.fixture
def encoder(bare: Path) -> Path:
    """The same with its ONNX file."""
    assert add_onnx(bare) is not None
    return bare


def alter(encoder: Path) -> None:
    """Other weights in the ONNX file, with a card that agrees with it: the id stays."""
    path = encoder / "encoder.onnx"
    graph = onnx.load(path)
    for initializer in graph.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype.kind == "f":
            initializer.CopyFrom(numpy_helper.from_array(values * 1.5, initializer.name))
    onnx.save(graph, path)
    amend_card(encoder, onnx_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def copy_of(home: Home) -> Path:
    (copy,) = (home.path / "encoders").iterdir()
    return copy


def best_score(home: Home, shop: Path) -> float:
    return Searcher(home).search_image("default", next(shop.rglob("*.jpg")).read_bytes(), k=1).results[0].score


def index(home: Home, shop: Path, encoder: Path) -> subprocess.CompletedProcess[str]:
    """`nitamono index` where PyTorch is not installed."""
    arguments = ["index", str(shop), "--home", str(home.path), "--encoder", str(encoder), "--processes", "0"]
    code = f"{WITHOUT_TORCH}sys.argv = ['nitamono', *{arguments!r}]\nfrom service.cli import main\nmain()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_an_altered_onnx_file_is_refused_at_its_first_registration(home: Home, shop: Path, encoder: Path) -> None:
    alter(encoder)
    with pytest.raises(
        MismatchError, match="encoder.onnx: does not compute the vectors of the weights .* differs from"
    ):
        index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    assert home.catalogue.encoders.all() == [] and not (home.path / "encoders").exists()


@pytest.mark.slow
def test_a_graph_of_something_else_is_refused(home: Home, shop: Path, encoder: Path, tmp_path: Path) -> None:
    other = as_encoder(build("ae", latent_dim=3), "ae").save(tmp_path / "other")
    add_onnx(other)
    (encoder / "encoder.onnx").write_bytes((other / "encoder.onnx").read_bytes())
    amend_card(encoder, onnx_sha256=hashlib.sha256((encoder / "encoder.onnx").read_bytes()).hexdigest())
    with pytest.raises(MismatchError, match="does not compute the vectors of the weights .* outputs of other shapes"):
        index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)


def test_a_true_onnx_file_is_accepted_and_without_pytorch_it_is_said_that_nobody_compared_it(
    home: Home, shop: Path, encoder: Path
) -> None:
    done = index(home, shop, encoder)
    assert done.returncode == 0, done.stderr
    assert "was not compared with its weights, because PyTorch is not installed" in done.stderr
    assert index_source(home, "other", shop, encoder_ref=str(encoder), processes=0).onnx_compared


def test_a_deleted_onnx_file_is_damage_that_repair_mends_from_the_weights(
    home: Home, shop: Path, encoder: Path
) -> None:
    index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    path = copy_of(home) / "encoder.onnx"
    path.unlink()
    with pytest.raises(CorruptError, match="encoder.onnx: is missing; run `nitamono repair`"):
        best_score(home, shop)
    report = repair(home)
    assert (report.encoders, report.problems) == ([copy_of(home).name], [])
    assert path.exists() and home.has_sound_encoder(copy_of(home).name)
    assert best_score(home, shop) == pytest.approx(1, abs=1e-4)
    assert repair(home) == type(report)()


@pytest.mark.parametrize("harm", ["deleted", "altered"])
def test_repair_brings_back_the_onnx_file_of_the_directory_that_was_indexed_from(
    harm: str, home: Home, shop: Path, encoder: Path
) -> None:
    index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    path = copy_of(home) / "encoder.onnx"
    path.unlink() if harm == "deleted" else alter(copy_of(home))
    assert repair(home, encoder).problems == []
    assert path.read_bytes() == (encoder / "encoder.onnx").read_bytes()
    assert home.has_sound_encoder(copy_of(home).name)


def test_an_encoder_registered_without_an_onnx_file_may_get_one(home: Home, shop: Path, bare: Path) -> None:
    index_source(home, "default", shop, encoder_ref=str(bare), processes=0)
    assert not (copy_of(home) / "encoder.onnx").exists()
    add_onnx(bare)
    report = index_source(home, "default", shop, encoder_ref=str(bare), processes=0)
    assert (report.unchanged, report.generation, report.onnx_compared) == (4, 1, True)
    assert (copy_of(home) / "encoder.onnx").read_bytes() == (bare / "encoder.onnx").read_bytes()
    assert home.has_sound_encoder(copy_of(home).name)
    assert best_score(home, shop) == pytest.approx(1, abs=1e-4)


def test_but_not_one_that_computes_other_vectors_or_that_nobody_can_compare(home: Home, shop: Path, bare: Path) -> None:
    index_source(home, "default", shop, encoder_ref=str(bare), processes=0)
    add_onnx(bare)
    done = index(home, shop, bare)
    assert done.returncode == 1 and "comparing it with the encoder's weights needs the package 'torch'" in done.stderr
    alter(bare)
    with pytest.raises(MismatchError, match="does not compute the vectors of the weights"):
        index_source(home, "default", shop, encoder_ref=str(bare), processes=0)
    assert not (copy_of(home) / "encoder.onnx").exists() and home.has_sound_encoder(copy_of(home).name)


def test_an_encoder_whose_onnx_file_was_removed_before_it_is_registered_embeds_with_its_weights(
    home: Home, shop: Path, encoder: Path
) -> None:
    (encoder / "encoder.onnx").unlink()
    assert "onnx_sha256" in describe_encoder(encoder).card
    index_source(home, "default", shop, encoder_ref=str(encoder), processes=0)
    assert home.has_sound_encoder(copy_of(home).name)
    assert best_score(home, shop) == pytest.approx(1, abs=1e-4)


def test_a_search_reads_the_onnx_file_once(home: Home, shop: Path) -> None:
    index_source(home, "default", shop, encoder_ref="pixels", processes=0)
    photo = next(shop.rglob("*.jpg"))
    command = [sys.executable, "-c", PROGRAM, "search", str(photo), "--home", str(home.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.endswith("opened 1\n"), done.stderr


def test_an_onnx_file_that_is_damaged_on_the_disk_is_not_searched_with(home: Home, shop: Path) -> None:
    index_source(home, "default", shop, encoder_ref="pixels", processes=0)
    path = copy_of(home) / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-7] + bytes(7))
    with pytest.raises(CorruptError, match="does not match the checksum in card.json.*nitamono repair"):
        best_score(home, shop)
