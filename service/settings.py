"""The service's settings: environment variables named `NITAMONO_...`, read when the app is made, never at import."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SettingsError

PREFIX = "NITAMONO_"


class Settings(BaseSettings):
    """What can be set from outside; `NITAMONO_HOME` sets `home`, and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default=Path("nitamono-home"), description="directory of catalogue and indexes")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; SQLite in the home when unset")
    device: str = Field(default="cpu", description="where images are encoded: cpu, cuda or cuda:N")
    threads: int = Field(default=1, ge=1, le=256, description="threads that encode one image, in each process")
    request_threads: int = Field(default=8, ge=1, le=256, description="requests worked on at once, in each process")
    max_upload_bytes: int = Field(default=32 * 2**20, ge=1024, description="largest request body")
    max_pixels: int = Field(default=64_000_000, ge=4096, description="largest image, width times height")
    query_log: int = Field(default=1000, ge=0, le=1_000_000, description="recent query vectors kept; 0 keeps none")
    public_read: bool = Field(default=True, description="whether searching needs no API key once keys exist")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level to log")


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with `overrides` before it.

    Raises:
        SettingsError: a value is not valid; the message names the variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['input']!r} is not valid ({first['msg']})") from exc
