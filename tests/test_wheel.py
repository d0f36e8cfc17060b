"""What is installed from the wheel: all packages and their data, and enough to index photos and search."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import write_photos

ROOT = Path(__file__).parents[1]
LAYERS = ("training", "indexer", "service")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", *LAYERS, "alembic")


def test_the_packages_of_the_project_are_those_of_the_tree() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {path.parent for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
    assert sorted(listed) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)


def done(command: list[str], folder: Path) -> str:
    """The output of a command that must succeed, outside of the repository and without its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NITAMONO_", "PYTHON"))}
    run = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.wheel
@pytest.mark.timeout(1800)
def test_a_wheel_in_an_empty_environment_indexes_photos_and_searches(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build leaves its traces beside the packages
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path / "dist"), str(source)], tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    done([sys.executable, "-m", "venv", str(tmp_path / "venv")], tmp_path)
    binaries = tmp_path / "venv" / "bin"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    done([str(binaries / "python"), *pip[1:], "install", *constraints, str(wheel)], tmp_path)

    photos = write_photos(tmp_path / "photos", 3)
    nitamono = str(binaries / "nitamono")
    report = json.loads(done([nitamono, "index", str(photos), "--home", "home", "--json"], tmp_path))
    assert (report["added"], report["rejected"]) == (3, 0)
    for photo in sorted(photos.rglob("*.jpg")):
        page = json.loads(done([nitamono, "search", str(photo), "--home", "home", "--json"], tmp_path))
        assert len(page["results"]) == 3
        assert page["results"][0]["item_id"] == str(photo.relative_to(photos))
    recipes = done([nitamono, "train", "--list"], tmp_path)
    assert "vae" in recipes
    page_file = (
        "import service.web, importlib.resources as r; print(r.files('service.web').joinpath('index.html').is_file())"
    )
    assert done([str(binaries / "python"), "-c", page_file], tmp_path).strip() == "True"
