"""What tests of every layer share: drawn photos, a tiny real encoder, and databases to run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests import postgres

ROOT = Path(__file__).parent
# Files and folders whose tests train, draw catalogues or start processes. They start first, in this order, so that no
# test process is left with a long file at the end; tests/test_heavy.py checks the list. `make fast` leaves them out, as
# it does the tests that need a browser or PostgreSQL.
HEAVY = (
    "test_main_job.py",
    "service/test_retrain_under_load.py",
    "service/test_kill_trials.py",
    "indexer/ingest/test_kill.py",
    "indexer/ingest/test_kill_removal.py",
    "indexer/ingest/test_catalogue_commands.py",
    "training/models/test_settings.py",
    "training/models/test_learning.py",
    "training/models/test_contract.py",
    "training/test_loop.py",
    "training/test_robust_runs.py",
    "indexer/retrain",
    "indexer/calibrate",
    "indexer/compare",
    "training/models/test_sketch_rnn.py",
    "training/sketches/test_fit.py",
    "training/data/test_studio.py",
    "training/models/test_item_first.py",
    "training/onnx",
    "training/layers/test_autoregressive.py",
    "training/layers/test_drawing.py",
    "training/layers/test_flow.py",
    "training/finder",
    "training/fitting",
    "training/commands",
    "training/objectives",
    "training/test_gallery.py",
    "training/test_flow_demo.py",
    "training/test_latent_flow.py",
    "service/test_typicality.py",
    "training/test_pretrained_backbones.py",
    "indexer/drift",
    "indexer/evaluate/test_placement_tables.py",
    "indexer/search/test_used_region.py",
    "indexer/encoders",
    "indexer/backup",
    "indexer/catalogue/test_migrations.py",
    "benchmarks",
    "service/test_drawings.py",
    "service/web/test_drawing.py",
    "service/test_serve.py",
    "service/test_durability.py",
    "service/test_pgvector.py",
    "service/test_schemathesis.py",
    "service/test_damaged_catalogue.py",
    "service/test_disk_full.py",
    "service/test_read_only.py",
    "indexer/ingest/test_onnx_files.py",
    "test_base_installation.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the heavy tests, and start with the files that are heavy as a whole."""
    for item in items:
        if heaviness(item.path) < len(HEAVY) or needs_a_server(item):
            item.add_marker(pytest.mark.heavy)
    items.sort(key=lambda item: heaviness(item.path))


def needs_a_server(item: pytest.Item) -> bool:
    """Whether a test needs a browser or PostgreSQL."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    fixtures = set(item.fixturenames) if isinstance(item, pytest.Function) else set()
    values = [value for value in parameters.values() if isinstance(value, str)]
    return bool(fixtures & {"browser", "postgres_server"}) or any(
        v.startswith(("postgres", "pgvector")) for v in values
    )


def heaviness(path: Path) -> int:
    """The place of a test file in `HEAVY`; past its end where it is not heavy."""
    name = path.relative_to(ROOT).as_posix()
    return next((place for place, heavy in enumerate(HEAVY) if name.startswith(heavy)), len(HEAVY))


COLOURS = ("crimson", "navy", "gold", "teal", "orchid", "olive", "coral", "slategray")


def draw_photo(number: int, size: tuple[int, int] = (96, 128)) -> Image.Image:
    """A photo of a made-up thing, different for each number: a shape in a colour on noise."""
    rng = np.random.default_rng(number)
    width, height = size
    noise = rng.integers(150, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    left, top = (int(v) for v in rng.integers(4, 30, 2))
    box = (left, top, width - int(rng.integers(4, 30)), height - int(rng.integers(4, 40)))
    shapes = (
        draw.ellipse,
        draw.rectangle,
        lambda b, fill: draw.polygon([(b[0], b[3]), (b[2], b[3]), (b[2], b[1])], fill),
    )
    shapes[number % 3](box, fill=COLOURS[number % len(COLOURS)])
    return image


def write_photos(
    folder: Path, count: int, *, start: int = 0, categories: tuple[str, ...] = ("bag", "hat", "mug")
) -> Path:
    """`count` JPEGs, `folder/CATEGORY/NNNN.jpg`."""
    for number in range(start, start + count):
        path = folder / categories[number % len(categories)] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_photo(number).save(path, quality=90)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos in three categories; read only."""
    return write_photos(tmp_path_factory.mktemp("photos"), 24)


def save_pixels_encoder(directory: Path, size: int) -> Path:
    from training.encoder import Encoder
    from training.models import MODELS
    from training.preprocessing import Preprocessing

    family = MODELS["pixels"]
    config = family.config(size=size)
    model = family.model(config)
    return Encoder(model, family="pixels", config=asdict(config), preprocessing=Preprocessing(size=size)).save(
        directory
    )


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real encoder that needs no training and is fast: pixels at 16 x 16."""
    return save_pixels_encoder(tmp_path_factory.mktemp("encoders") / "pixels-16", 16)


@pytest.fixture(scope="session")
def other_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, of another dimension."""
    return save_pixels_encoder(tmp_path_factory.mktemp("encoders") / "pixels-8", 8)


@pytest.fixture(scope="session")
def sketch_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of drawings that has learnt four shapes."""
    from tests.drawings import train_on_shapes

    return train_on_shapes(tmp_path_factory.mktemp("encoders") / "shapes")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NITAMONO_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL with pgvector; yields the URL of its `postgres` database."""
    server = postgres.PostgresServer(tmp_path_factory.mktemp("postgres"), tmp_path_factory.getbasetemp().parent)
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of its own."""
    with postgres.database(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same test on both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url
