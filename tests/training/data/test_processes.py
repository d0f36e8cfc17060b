"""Child processes: results, errors, and how all of them end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.data.processes import map_in_processes
from training.errors import NitamonoError, ProcessError


def square(number: int) -> int:
    return number * number


def threads(number: int) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def refuse(number: int) -> int:
    if number == 3:
        raise NitamonoError("three is not allowed")
    return number


def lose_the_file(number: int) -> int:
    raise FileNotFoundError(2, "No such file or directory", "lost.png")


def end(number: int) -> int:
    os._exit(7)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_every_argument_gets_its_result_once(processes: int) -> None:
    assert sorted(map_in_processes(square, range(4), processes)) == [0, 1, 4, 9]
    assert list(map_in_processes(square, [], processes)) == []


def test_each_process_computes_in_one_thread_and_the_parent_keeps_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert list(map_in_processes(threads, [0], 1)) == ["1"]
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_an_error_of_the_function_is_raised_and_ends_all_processes() -> None:
    with pytest.raises(NitamonoError, match="three is not allowed"):
        list(map_in_processes(refuse, range(6), 2))
    with pytest.raises(FileNotFoundError) as caught:
        list(map_in_processes(lose_the_file, range(6), 2))
    assert caught.value.filename == "lost.png"
    assert multiprocessing.active_children() == []


def test_a_process_that_ends_is_named_with_its_status() -> None:
    with pytest.raises(ProcessError, match=r"ended unexpectedly \(exit status 7\); free some memory"):
        list(map_in_processes(end, range(6), 2))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_ctrl_c_while_photos_are_drawn_ends_every_process_with_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "service.cli", "sample-catalogue", "--out", str(tmp_path / "shop"),
        "--items", "400", "--processes", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)  # noqa: S603
    images = tmp_path / "shop" / "images"
    while not (images.is_dir() and any(images.iterdir())) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)  # which waits for the children as well: they hold the pipe open
    assert process.returncode == 130
    assert b"interrupted" in errors and b"Traceback" not in errors
