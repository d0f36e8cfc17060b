"""Output shared by all commands: results on stdout as text or JSON; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, Any, NamedTuple, NoReturn, Protocol

import typer

MAX_FAULTS = 20  # unusable files named on stderr
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class Fault(Protocol):
    """Something in a source that cannot be used."""

    @property
    def where(self) -> str: ...

    @property
    def reason(self) -> str: ...


def say(document: Any, as_json: bool, text: str) -> None:
    """Print a command's result: the document as JSON, or its text."""
    line = to_json(document) if as_json else text
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def to_json(document: Any) -> str:
    """A JSON document that every parser accepts: NaN and infinity become null."""
    return json.dumps(_finite(document), ensure_ascii=False, indent=2, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def note(line: str) -> None:
    """Print a line for the user on stderr, apart from the result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def note_unusable(faults: Iterable[Fault]) -> None:
    """Print where unusable files or rows are, and why, for the first 20 of them."""
    for fault in islice(faults, MAX_FAULTS):
        note(f"{fault.where}: {fault.reason}")


def fail(message: str) -> NoReturn:
    """End the command with one line on stderr and exit status 1."""
    sys.stderr.write("nitamono: " + " ".join(message.split()) + "\n")
    sys.exit(1)


class Progress(NamedTuple):
    """Progress callbacks: `started` takes the total, `advance` the number of things done since the last call."""

    started: Callable[[int], None]
    advance: Callable[[int], None]


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Progress]:
    """A progress bar on stderr with rate and time left, if that is a terminal; it appears after half a second."""
    from tqdm import tqdm

    bar = tqdm(desc=what, unit=unit, file=sys.stderr, disable=None, delay=0.5, dynamic_ncols=True)

    def started(total: int) -> None:
        bar.total = total

    with bar:
        yield Progress(started, lambda count: None if bar.update(count) else None)
