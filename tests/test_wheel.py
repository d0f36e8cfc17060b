"""What the Dockerfile installs: all packages and their data, and enough to index photos and search."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import write_photos

ROOT = Path(__file__).parents[1]
LAYERS = ("training", "indexer", "service")
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


def test_the_packages_of_the_project_are_those_of_the_tree() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {path.parent for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
    assert sorted(listed) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)


def done(command: list[str], folder: Path, **settings: str) -> str:
    """The output of a command that must succeed, outside of the repository and without its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NITAMONO_", "PYTHON"))}
    run = subprocess.run(command, cwd=folder, env={**kept, **settings}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def copy_as_the_dockerfile_does(folder: Path) -> None:
    """Copy what the Dockerfile copies from the repository, and nothing else."""
    for words in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.M):
        *sources, target = words.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, folder / target)


@pytest.mark.slow
@pytest.mark.wheel
@pytest.mark.timeout(1800)
def test_the_dockerfile_installs_into_an_empty_environment_that_indexes_photos_and_searches(tmp_path: Path) -> None:
    """`pip install` builds a wheel of what was copied, and installs that."""
    source = tmp_path / "source"
    source.mkdir()
    copy_as_the_dockerfile_does(source)
    done([sys.executable, "-m", "venv", str(tmp_path / "venv")], tmp_path)
    binaries = tmp_path / "venv" / "bin"
    stage = DOCKERFILE.partition("AS build-serve\n")[2].partition("\nFROM")[0]
    ((extras, install),) = re.findall(r"^ARG EXTRAS=(.+)\nRUN (pip install .+)", stage, re.M)
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    done(["/bin/sh", "-c", install], source, PATH=path, EXTRAS=extras)
    shutil.rmtree(source)

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
    assert "psycopg" in done([str(binaries / "python"), "-m", "pip", "list"], tmp_path)
