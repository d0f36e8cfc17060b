"""Logging to stderr, one JSON object per line."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

LOGGED_EVERY = 600.0  # seconds
logger = logging.getLogger("nitamono")
FIELDS = ("request_id", "client", "key", "method", "path", "route", "status", "bytes", "ms")


class JsonFormatter(logging.Formatter):
    """Formats time, level, logger, message and the fields of an access log line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = vars(record)
        line.update({name: extra[name] for name in FIELDS if extra.get(name) is not None})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class OncePerPeriod:
    """Tells whether a message is due: True at first, and then once in a number of seconds."""

    def __init__(self, seconds: float, *, kept: int = 100) -> None:
        self._seconds = seconds
        self._kept = kept
        self._last: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, message: str) -> bool:
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(message, float("-inf")) < self._seconds:
                return False
            self._last[message] = now
            self._last.move_to_end(message)
            while len(self._last) > self._kept:
                self._last.popitem(last=False)
            return True


_is_due = OncePerPeriod(LOGGED_EVERY)


def error_once(message: str) -> None:
    """Log an error, but not again for `LOGGED_EVERY` s: requests that fail for one cause would fill the log with it."""
    if _is_due(message):
        logger.error("%s", message)


def log_config(level: str) -> dict[str, Any]:
    """A `logging.config.dictConfig` for uvicorn and Nitamono; the access log is Nitamono's own."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "service.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "loggers": {
            "nitamono": {"handlers": ["stderr"], "level": level.upper(), "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        },
    }
