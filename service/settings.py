"""The service's settings: environment variables `NITAMONO_...`, read when the app is created, never at import."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.decoding import DEFAULT_BYTES
from indexer.vectors.engines import Engine
from service.errors import SettingsError
from service.host_names import parse_hosts
from service.rates import parse_rate

PREFIX = "NITAMONO_"


class Settings(BaseSettings):
    """Settings of the server; `NITAMONO_HOME` sets `home`, and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default=Path("nitamono-home"), description="home directory of the catalogue and the indexes")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; SQLite in the home by default")
    vectors: Engine = Field(default="faiss", description="engine of the indexes that are built: faiss or pgvector")
    device: str = Field(default="cpu", description="device to encode query images on: cpu, cuda or cuda:N")
    threads: int = Field(default=1, ge=1, le=256, description="threads per process that encode one image")
    request_threads: int = Field(
        default_factory=lambda: search_threads(1),
        ge=1,
        le=256,
        description="concurrent searches per process; by default, its share of the CPU cores, at least 2",
    )
    write_threads: int = Field(default=2, ge=1, le=64, description="concurrent writes per process")
    request_queue: int = Field(
        default=16, ge=0, le=10_000, description="searches that wait for a thread, per process; more get 503"
    )
    write_wait: float = Field(
        default=4, gt=0, le=3600, description="seconds that a write waits while another process writes the database"
    )
    max_connections: int = Field(default=1000, ge=1, le=100_000, description="open connections per process")
    head_timeout: float = Field(
        default=10, gt=0, le=3600, description="seconds in which the headers of a request must arrive"
    )
    keep_alive: int = Field(default=5, ge=1, le=3600, description="seconds that an idle connection is kept open")
    drain_seconds: int = Field(
        default=20, ge=0, le=3600, description="seconds that requests in progress may take after SIGTERM"
    )
    body_timeout: float = Field(
        default=20, gt=0, le=3600, description="seconds in which a request body must arrive, and 1 more per 16 KiB"
    )
    max_upload_bytes: int = Field(default=32 * 2**20, ge=1024, description="maximum size of a request body")
    max_bodies_bytes: int = Field(
        default=256 * 2**20, ge=2**20, description="memory for the bodies of all requests in progress, per process"
    )
    max_pixels: int = Field(default=64_000_000, ge=4096, description="maximum image size, width times height")
    max_decode_bytes: int = Field(
        default=DEFAULT_BYTES,
        ge=2**20,
        description="memory for decoding images, per process; an image over it is refused",
    )
    thumbnail_bytes: int = Field(
        default=256 * 2**20, ge=0, description="disk space for thumbnails in the home; 0 keeps none"
    )
    query_log: int = Field(
        default=1000, ge=0, le=1_000_000, description="recent query vectors to keep; 0 disables the log"
    )
    fold_items: int = Field(
        default=5000,
        ge=0,
        description="items changed over HTTP, from which on a new index is built in the background; 0: never",
    )
    public_read: bool = Field(default=True, description="allow searching without an API key once keys exist")
    rate_limit_address: str = Field(
        default="",
        description="requests below /v1/ from one address without a valid API key, such as 600/minute; per process; "
        "empty for no limit",
    )
    rate_limit_key: str = Field(
        default="", description="requests below /v1/ with one API key, such as 100/second; per process; empty: no limit"
    )
    allowed_hosts: str = Field(
        default="",
        description="comma-separated host names that the server answers to, beside IP addresses and localhost; "
        "*.NAME means all names below NAME, and * any name",
    )
    trusted_proxies: str = Field(
        default="",
        description="comma-separated IP addresses and networks of proxies whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="minimum log level")

    @field_validator("rate_limit_address", "rate_limit_key")
    @classmethod
    def _check_rate(cls, value: str) -> str:
        parse_rate(value)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: str) -> str:
        return ",".join(parse_hosts(value))

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        return ",".join(str(ip_network(part.strip())) for part in value.split(",") if part.strip())


def search_threads(workers: int) -> int:
    """The default of `request_threads`: more than the cores can run make every answer slower, refusals and probes too,
    and a single one would wait behind a large image."""
    return max(2, (os.cpu_count() or 1) // workers)


def load_settings(**overrides: Any) -> Settings:
    """Read settings from the environment; `overrides` take precedence.

    Raises:
        SettingsError: a value is invalid; the message names the variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        if first["loc"] == ("database_url",):  # its password must not be printed, and the cause holds it
            raise SettingsError(f"{name} is invalid ({first['msg']})") from None
        raise SettingsError(
            f"{name}: {first['input']!r} is invalid ({first['msg'].removeprefix('Value error, ')})"
        ) from exc
