"""`nitamono drift`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from indexer.errors import InvalidRequestError
from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.console import JsonOption, note, progress_bar, say

LISTED = 20  # unreadable photos that are named on stderr


def drift(
    collection: CollectionOption = "default",
    new: Annotated[Path | None, typer.Option(help="SOURCE of photos that may have drifted.")] = None,
    queries: Annotated[Path | None, typer.Option(help="SOURCE of query photos.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO date: what came since then is new.")] = None,
    limit: Annotated[int, typer.Option(min=20, help="Most items of each kind to take, by chance.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that choice and of the resamples.")] = 0,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Say whether new items and recent queries are still like what the encoder was put into service with."""
    from indexer.catalogue.home import Home
    from indexer.drift.measure import DriftRequest, measure_drift

    request = DriftRequest(new, queries, parse_date(since) if since is not None else None, limit, seed)
    with progress_bar("reading", "img") as progress, Home.open(home) as opened:
        report = measure_drift(opened, collection, request, progress)
    for remark in report.notes:
        note(remark)
    for problem in report.rejected[:LISTED]:
        note(f"{problem.where}: {problem.reason}")
    if report.rejected:
        note(f"{len(report.rejected)} photos could not be used")
    say(report.to_json(), json_output, report.to_text())


def parse_date(text: str) -> datetime:
    """A moment from ISO 8601, in UTC where it names no zone; `InvalidRequestError` where it is not one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidRequestError("since", f"since {text!r} must be an ISO date such as 2026-01-31") from exc
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
