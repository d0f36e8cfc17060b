"""The server as a process: its address, its end, several workers, wrong settings."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.errors import AddressError, SettingsError
from service.serve import listen, to_environment
from service.settings import Settings, load_settings

PROGRAM = """
import sys
from pathlib import Path
from service.serve import serve
from service.settings import load_settings

if __name__ == "__main__":
    serve(load_settings(home=Path(sys.argv[1])), host=sys.argv[2], port=0, workers=int(sys.argv[3]))
"""


@contextmanager
def process(
    tmp_path: Path, home: Path, *, host: str = "127.0.0.1", workers: int = 1
) -> Iterator[tuple[str, list[str]]]:
    """A server process; yields its URL and the lines it said before it, and afterwards all it said."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(home), host, str(workers)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    said: list[str] = []
    assert server.stderr is not None
    try:
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"http://\S+:\d+", line):
                yield found[0], said
                break
        server.send_signal(signal.SIGTERM)
        said.extend(server.stderr)  # not communicate(): it knows nothing of lines that were read ahead
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_port_zero_is_printed_and_sigterm_ends_in_order(tmp_path: Path, home_copy: Path, photo: bytes) -> None:
    with process(tmp_path, home_copy) as (url, said):
        answer = httpx.post(f"{url}/v1/collections/shop/search", files={"image": photo}, timeout=60)
        assert len(answer.json()["results"]) == 10
    text = "".join(said)
    assert str(home_copy) in said[0]
    assert '"path": "/v1/collections/shop/search"' in text
    assert "Traceback" not in text and "warning" not in text
    assert not list(home_copy.glob("catalogue.sqlite-wal")), "the database was not closed"


def test_workers_share_the_socket_and_add_up_their_metrics(tmp_path: Path, home_copy: Path) -> None:
    with process(tmp_path, home_copy, workers=2, host="0.0.0.0") as (url, said):  # noqa: S104
        for _ in range(20):
            assert httpx.get(f"{url}/v1/collections", timeout=60).status_code == 200
        line = 'nitamono_http_requests_total{method="GET",route="/v1/collections",status="200"} 20.0'
        # A worker counts a request when it has answered: another one may be asked before that.
        texts = (httpx.get(f"{url}/metrics", timeout=60).text for _ in range(100))
        assert any(line in text.splitlines() for text in texts)
    assert "no API key exists" in "".join(said)


def test_an_address_that_is_taken_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressError) as caught:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "choose another --host or --port" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "::g"])
def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(AddressError, match="cannot listen on"):
        listen(host, 0)


def test_settings_come_from_the_environment_and_survive_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NITAMONO_MAX_UPLOAD_BYTES", "2048")
    monkeypatch.setenv("NITAMONO_PUBLIC_READ", "false")
    settings = load_settings(home=tmp_path)
    assert (settings.max_upload_bytes, settings.public_read) == (2048, False)
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("name", "value"), [("THREADS", "0"), ("PUBLIC_READ", "perhaps"), ("LOG_LEVEL", "loud"), ("MAX_PIXELS", "many")]
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"NITAMONO_{name}", value)
    with pytest.raises(SettingsError, match=f"^NITAMONO_{name}: '{value}' is invalid") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
