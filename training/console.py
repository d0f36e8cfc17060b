"""What every command shares: JSON or lines on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def say(document: Any, as_json: bool, text: str) -> None:
    """Print a command's result: the document as JSON, or its text."""
    line = to_json(document) if as_json else text
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def to_json(document: Any) -> str:
    """JSON that every parser takes: a number without a value (NaN, infinity) is null."""
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
    """Tell the person something beside the result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def fail(message: str, *, status: int = 1) -> NoReturn:
    """End the command with one line on stderr."""
    sys.stderr.write("nitamono: " + " ".join(message.split()) + "\n")
    sys.exit(status)


class Progress(NamedTuple):
    """`started` takes the number of things to do, `advance` how many more are done."""

    started: Callable[[int], None]
    advance: Callable[[int], None]


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Progress]:
    """A bar with rate and time left on stderr, drawn only once there has been something to wait for."""
    from tqdm import tqdm

    bar = tqdm(desc=what, unit=unit, file=sys.stderr, delay=0.5, dynamic_ncols=True, leave=True)

    def started(total: int) -> None:
        bar.total = total

    with bar:
        yield Progress(started, lambda count: None if bar.update(count) else None)
