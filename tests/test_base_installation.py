"""The base installation, without the packages of the extras: what works, and what tells which extra to install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_photos
from training.errors import MissingExtraError
from training.extras import EXTRA_OF, extras

ROOT = Path(__file__).parents[1]
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if f"{{name}}.".startswith({packages!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import service.cli
service.cli.main()
"""


def nitamono(*arguments: object, packages: set[str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process that cannot import the packages of the extras."""
    code = WITHOUT.format(packages=tuple(f"{name}." for name in packages or EXTRA_OF))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def succeeded(*arguments: object) -> dict[str, object]:
    done = nitamono(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("base") / "shop", 6)


def test_a_catalogue_is_indexed_and_searched(shop: Path, tmp_path: Path) -> None:
    report = succeeded("index", shop, "--home", tmp_path / "home", "--processes", 0)
    assert report["added"] == 6 and report["rejected"] == 0
    photo = next(shop.rglob("*.jpg"))
    page = succeeded("search", photo, "--home", tmp_path / "home", "-k", 3)
    results = page["results"]
    assert isinstance(results, list) and len(results) == 3
    assert results[0]["item_id"] == str(photo.relative_to(shop))


def test_retrieval_is_evaluated_and_baselines_that_need_more_are_named(shop: Path) -> None:
    sources = ("--gallery", shop, "--queries", shop, "--relevance", "category")
    found = succeeded("evaluate", *sources, "--encoder", "small")
    encoders, notes = found["encoders"], found["notes"]
    assert isinstance(encoders, dict) and list(encoders) == ["small", "pixels"]
    assert isinstance(notes, list) and len(notes) == 2
    assert all("is skipped" in note and "nitamono[train]" in note for note in notes)


def test_the_service_starts() -> None:
    code = WITHOUT.format(packages=tuple(f"{name}." for name in EXTRA_OF)).replace(
        "service.cli\nservice.cli.main()", "service.app"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (("train", "vae", "--data", "SHOP", "--out", "OUT"), "torch", "train"),
        (("compare", "--data", "SHOP"), "torch", "train"),
        (("embed", "SHOP", "--encoder", "hog", "--out", "OUT.npz"), "torch", "train"),
        (
            ("evaluate", "--gallery", "SHOP", "--queries", "SHOP", "--report", "OUT.html"),
            "plotly",
            "report",
        ),
        (("index", "SHOP/items.parquet", "--home", "OUT"), "pyarrow", "parquet"),
    ],
)
def test_a_command_that_needs_more_names_the_extra(
    arguments: tuple[str, ...], package: str, extra: str, shop: Path, tmp_path: Path
) -> None:
    (shop / "items.parquet").write_bytes(b"PAR1")
    places = {"SHOP": str(shop), "OUT": str(tmp_path / "out")}
    given = [argument.replace("SHOP", places["SHOP"]).replace("OUT", places["OUT"]) for argument in arguments]
    done = nitamono(*given, packages={package})
    assert done.returncode == 1, done.stdout
    assert f"the package '{package}'" in done.stderr and f"pip install 'nitamono[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_other_missing_modules_are_not_taken_for_extras() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, extras("this"):
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")
    assert not isinstance(caught.value, MissingExtraError)  # type: ignore[unreachable]
