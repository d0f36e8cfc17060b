"""The command line as users run it: in a process of its own, which a test may kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import typer.main

from service.cli import app


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "service.cli", *map(str, words)]


def run(*words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, input=stdin)


def json_of(*words: object) -> Any:
    """The JSON of a command that must succeed."""
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parse(words: Sequence[str]) -> None:
    """Parse `nitamono ...` without running it; wrong usage raises click's error."""
    command: Any = typer.main.get_command(app)
    rest = list(words[1:])
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(words[-1], rest)


def installed(name: str, found: str | None, package: str) -> str:
    """The path of a program; where its Debian package is missing, the test is skipped, or fails in CI."""
    if found is None:
        message = f"{name} is not installed (apt-get install {package})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def start(*words: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command, in a session of its own."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen(command(*words), **{**silent, **options})


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> bool:
    """SIGKILL as soon as the moment has come; False where the process ended before."""
    while not moment():
        if process.poll() is not None:
            assert process.returncode == 0
            return False
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True
