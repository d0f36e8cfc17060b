"""SIGKILL at any moment of `nitamono index`, then the same command again: the same end as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from indexer.catalogue.home import Home
from indexer.generations.store import verify
from indexer.ingest.ingest import index_source
from tests import commands
from tests.commands import kill_when
from tests.conftest import draw_photo, write_photos
from tests.indexer.conftest import served, stored

KILLS = 20
ALWAYS = (0, 2, 5, 7)  # every kind of moment, two in a first indexing and two in an update; the others are soak tests
PHOTOS = 320


def start(home: Path, source: Path, encoder: Path, errors: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return commands.start("index", source, "--home", home, "--encoder", encoder, stderr=errors)


def write_shop(source: Path) -> None:
    """The shop of today: photos, a double, and a file that is none."""
    write_photos(source, PHOTOS)
    (source / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    shutil.copy(source / "bag/0000.jpg", source / "double.jpg")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> tuple[Path, Path, Path]:
    """The shop, a home that served it with half the photos and others among them, and one to compare with."""
    folder = tmp_path_factory.mktemp("kill")
    source = write_photos(folder / "shop", PHOTOS // 2)
    for path in sorted(source.rglob("*.jpg"))[::7]:
        draw_photo(1000).save(path)
    with Home.open(folder / "old", create=True) as home:
        index_source(home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    write_shop(source)
    with Home.open(folder / "undisturbed", create=True) as home:
        index_source(home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    return source, folder / "old", folder / "undisturbed"


def state_of(path: Path) -> tuple[object, ...]:
    with Home.open(path) as home:
        records = home.catalogue.generations.all("default")
        active = [record.number for record in records if record.status == "active"]
        assert len(active) == 1
        assert verify(home, "default", active[0]) == []
        left = [entry.name for entry in home.generations_directory("default").iterdir()]
        assert sorted(left) == [f"{r.number:06d}" for r in records if r.status != "removed"]
        return stored(home), served(home), records[-1].count


def rows_committed(home: Path) -> int:
    """How many images another process has committed so far."""
    try:
        with closing(sqlite3.connect(f"file:{home / 'catalogue.sqlite'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def random_moment(kill: int, attempt: int, home: Path) -> Callable[[], bool]:
    """By turns: any time, some time after some rows were committed, while the index is built, after it was built."""
    rng = random.Random(100 * attempt + kill)
    began = time.monotonic()
    delay = rng.uniform(0.05, 2.5) / (1 + attempt)
    rows = rows_committed(home) + 1 + rng.randrange(PHOTOS // 3)
    generations = home / "collections/default/generations"
    before = len(list(generations.glob("0*")))
    moments: list[Callable[[], bool]] = [
        lambda: time.monotonic() > began + delay,
        lambda: rows_committed(home) >= rows,
        lambda: any(generations.glob(".building-*")),
        lambda: any(generations.glob(".building-*/ids.npy")) or len(list(generations.glob("0*"))) > before,
    ]
    return moments[kill % len(moments)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill", [pytest.param(kill, marks=() if kill in ALWAYS else pytest.mark.soak) for kill in range(KILLS)]
)
def test_killed_at_a_random_moment_and_started_again_ends_the_same(
    kill: int, homes: tuple[Path, Path, Path], tmp_path: Path, encoder_dir: Path
) -> None:
    """Half of the kills hit a first indexing, half an update."""
    source, old, undisturbed = homes
    for attempt in range(10):
        home = tmp_path / f"home-{attempt}"
        if kill // 4 % 2:
            shutil.copytree(old, home)
        if kill_when(start(home, source, encoder_dir), random_moment(kill, attempt, home)):
            break
    else:
        pytest.fail("the indexer always ended before it could be killed")
    with Home.open(home, create=True) as opened:
        report = index_source(opened, "default", source, encoder_ref=str(encoder_dir), processes=0)
        assert (report.added + report.updated + report.unchanged, report.rejected) == (PHOTOS + 1, 1)
        again = index_source(opened, "default", source, processes=0)
        assert (again.unchanged, again.generation) == (PHOTOS + 1, report.generation)
    assert state_of(home) == state_of(undisturbed)


def workers_of(session: int) -> list[int]:
    """The reading processes of a session that are still alive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(status[3]) == session and status[0] != "Z" and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, IndexError):  # it ended meanwhile
            continue
    return found


def test_a_killed_indexer_leaves_no_process_behind(
    homes: tuple[Path, Path, Path], tmp_path: Path, encoder_dir: Path
) -> None:
    process = start(tmp_path / "home", homes[0], encoder_dir)
    assert kill_when(process, lambda: len(workers_of(process.pid)) >= 1)
    deadline = time.monotonic() + 20
    while workers_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(process.pid) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_image(
    homes: tuple[Path, Path, Path], tmp_path: Path, encoder_dir: Path
) -> None:
    source, _, undisturbed = homes
    process = start(tmp_path / "home", source, encoder_dir)
    while not workers_of(process.pid) and process.poll() is None:
        time.sleep(0.001)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    assert state_of(tmp_path / "home") == state_of(undisturbed)


@pytest.mark.slow
def test_ctrl_c_ends_at_once_and_the_next_run_goes_on(
    homes: tuple[Path, Path, Path], tmp_path: Path, encoder_dir: Path
) -> None:
    """A terminal sends the signal to the whole group: the reading processes get it too."""
    source, _, undisturbed = homes
    home = tmp_path / "home"
    process = start(home, source, encoder_dir)
    while rows_committed(home) == 0 and process.poll() is None:
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    with Home.open(home, create=True) as opened:
        assert index_source(opened, "default", source, encoder_ref=str(encoder_dir), processes=0).rejected == 1
    assert state_of(home) == state_of(undisturbed)


@pytest.mark.parametrize("delay", [0.0, 0.1, *(pytest.param(d, marks=pytest.mark.slow) for d in (0.02, 0.05, 0.2))])
def test_ctrl_c_while_the_reading_processes_start_says_one_line(
    delay: float, homes: tuple[Path, Path, Path], tmp_path: Path, encoder_dir: Path
) -> None:
    process = start(tmp_path / "home", homes[0], encoder_dir, errors=subprocess.PIPE)
    while not workers_of(process.pid) and process.poll() is None:
        time.sleep(0.0005)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors
