"""The documentation: every page is in the navigation, links resolve, and the paths that pages name exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
IDS = [path.relative_to(ROOT).as_posix() for path in TEXTS]

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`]+`")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w./-])((?:training|indexer|service|tests|benchmarks|alembic|docker|docs)/[\w/.+-]*\w/?)")
MODULE = re.compile(r"`((?:training|indexer|service)(?:\.\w+)+)[`(]")
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"' >]+""")
IMPORTED = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//[^"')]+""")


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml; values of Python tags are left out."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
CONFIG: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=Loader)


def navigation(entry: Any) -> Iterator[str]:
    """The pages of a part of `nav`."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from navigation(part)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site write it."""
    text = unicodedata.normalize("NFC", re.sub(r"\[([^]]*)]\([^)]*\)|<[^>]+>|[`*]", r"\1", heading)).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    slugs = Counter(slug(heading) for heading in HEADING.findall(text))
    return frozenset({*slugs, *re.findall(r'id="([^"]+)"', text)})


def test_navigation_has_every_page_once() -> None:
    assert sorted(navigation(CONFIG["nav"])) == [page.relative_to(DOCS).as_posix() for page in PAGES]


@pytest.mark.parametrize("page", TEXTS, ids=IDS)
def test_internal_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = page.parent == ROOT or target.is_relative_to(DOCS)  # the site has nothing outside of docs/
        known = target.suffix != ".md" or not anchor or anchor in anchors(target)
        if not (target.exists() and inside and known):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", TEXTS, ids=IDS)
def test_paths_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = {path for path in PATH.findall(text) if not re.search(r"[A-Z]{4}", path)}  # NAME.py stands for any file
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
    assert sorted(name for name in set(MODULE.findall(text)) if not is_module(name)) == []


def is_module(name: str) -> bool:
    """Whether a dotted name is a package, a module, or a name that a module defines."""
    path = ROOT / name.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    files = (path.parent.with_suffix(".py"), path.parent / "__init__.py")
    return any(file.is_file() and re.search(rf"\b{path.name}\b", file.read_text(encoding="utf-8")) for file in files)


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(DOCS).as_posix() for page in PAGES])
def test_pages_start_with_a_title_and_load_nothing_from_other_hosts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert not re.search(r"!\[[^]]*]\(\s*(https?:)?//|<script|<iframe|^```mermaid", text, re.MULTILINE)


def test_theme_loads_no_fonts() -> None:
    assert CONFIG["theme"]["font"] is False


@pytest.mark.slow
def test_site_builds_strictly_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.py"))
    found = [(path, LOADED.findall(path.read_text(encoding="utf-8"))) for path in tmp_path.rglob("*.html")]
    found += [(path, IMPORTED.findall(path.read_text(encoding="utf-8"))) for path in tmp_path.rglob("*.css")]
    assert {path.name: loaded for path, loaded in found if loaded} == {}
