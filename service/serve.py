"""Running the app: listening socket, server processes and graceful shutdown."""

from __future__ import annotations

import ipaddress
import logging.config
import os
import shutil
import signal
import socket
import sys
import tempfile
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from indexer.catalogue.home import Home
from service.connections import ServerConfig
from service.errors import AddressError
from service.host_names import parse_hosts
from service.logs import log_config
from service.settings import PREFIX, Settings, search_threads

APP = "service.app:create_app_from_environment"


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8080, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are completed first.

    Args:
        settings: passed to the server processes in environment variables.
        host: address to listen on.
        port: port to listen on; 0 chooses a free port, which is printed.
        workers: number of server processes.

    Raises:
        AddressError: the server cannot listen on the host and port.
        NitamonoError: the home cannot be opened.
    """
    with Home.open(settings.home, database_url=settings.database_url, vectors=settings.vectors, create=True) as home:
        is_open = not home.catalogue.keys.exist()
    listener = listen(host, port)
    settings = answering_to(settings, host)
    if "request_threads" not in settings.model_fields_set:
        settings = settings.model_copy(update={"request_threads": search_threads(workers)})
    os.environ.update(to_environment(settings))
    logging.config.dictConfig(log_config(settings.log_level))
    url = _url(host, listener.getsockname()[1])
    sys.stderr.write(f"Nitamono is running at {url} (home {settings.home.absolute()}); press Ctrl+C to stop\n")
    if is_open and not _is_loopback(host):
        sys.stderr.write(
            "warning: no API key exists, so anyone who reaches this address can write; run `nitamono keys create`\n"
        )
    sys.stderr.flush()
    config = server_config(APP, settings, factory=True, workers=workers, log_config=log_config(settings.log_level))
    # After its shutdown, uvicorn passes the signal on to the previous handler, which is one of these.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run(config, listener)
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()


def answering_to(settings: Settings, host: str) -> Settings:
    """The settings with the host to listen on among the allowed host names, if it is a name."""
    try:
        names = parse_hosts(host)
    except ValueError:
        return settings  # an IPv6 address, which is always allowed
    allowed = dict.fromkeys((*parse_hosts(settings.allowed_hosts), *names))
    return settings.model_copy(update={"allowed_hosts": ",".join(allowed)})


def server_config(app: Any, settings: Settings, **options: Any) -> ServerConfig:
    """The configuration of uvicorn by the settings."""
    return ServerConfig(
        app,
        head_timeout=settings.head_timeout,
        max_connections=settings.max_connections,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.drain_seconds,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        **options,
    )


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        AddressError: the address belongs to another machine, is in use, or needs more privileges.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise AddressError(f"cannot listen on {host}:{port} ({reason}); choose another --host or --port") from exc


def to_environment(settings: Settings) -> dict[str, str]:
    """The environment variables that reproduce the settings."""
    values = settings.model_dump(mode="json", exclude_none=True)
    values["home"] = str(settings.home.absolute())
    return {PREFIX + name.upper(): str(value) for name, value in values.items()}


def _run(config: uvicorn.Config, listener: socket.socket) -> None:
    if config.workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    # All processes keep their metrics in files, so that each process can report the sum.
    counters = tempfile.mkdtemp(prefix="nitamono-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = counters
    try:
        _Workers(config, sockets=[listener]).run()
    finally:
        shutil.rmtree(counters, ignore_errors=True)


class _Workers(Multiprocess):
    """The worker processes; once they end, nobody listens any more, so that new connections are refused."""

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def _url(host: str, port: int) -> str:
    name = "127.0.0.1" if host in ("0.0.0.0", "") else "[::1]" if host == "::" else host  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name and not name.startswith('[') else name}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
