"""`nitamono drift`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from indexer.errors import InvalidRequestError
from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.console import JsonOption, note, note_unusable, progress_bar, say
from training.files import publish_file


def drift(
    collection: CollectionOption = "default",
    new: Annotated[Path | None, typer.Option(metavar="SOURCE", help="SOURCE of new photos to check.")] = None,
    queries: Annotated[Path | None, typer.Option(metavar="SOURCE", help="SOURCE of query photos to check.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="ISO 8601 date from which items and queries count as new, in UTC unless it names a time zone."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=20, help="Maximum number of items of each kind, chosen at random.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the choice and the resamples.")] = 0,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Check new items and recent queries for drift.

    Compares them with the catalogue at the time when the collection's encoder was activated, and recommends whether to
    retrain. By default, new items are those added since then and queries are those logged by running servers. Exits
    with 0 whether or not there is drift.

    \b
    Examples:
      nitamono drift
      nitamono drift --since 2026-01-31 --queries query-photos
    """
    from indexer.catalogue.home import Home
    from indexer.drift.measure import DriftRequest, measure_drift

    request = DriftRequest(new, queries, parse_date(since) if since is not None else None, limit, seed)
    with progress_bar("reading", "img") as progress, Home.open(home) as opened:
        report = measure_drift(opened, collection, request, progress)
        document = {**report.to_json(), "measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
        publish_file(opened.drift_file(collection), (json.dumps(document, indent=1) + "\n").encode())
    for remark in report.notes:
        note(remark)
    note_unusable(report.rejected)
    if report.rejected:
        note(f"{len(report.rejected)} photos could not be read")
    say(report.to_json(), json_output, report.to_text())


def parse_date(text: str) -> datetime:
    """Parse an ISO 8601 date or time, in UTC unless it names a time zone.

    Raises:
        InvalidRequestError: the text is not ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidRequestError("since", f"since {text!r} must be an ISO date such as 2026-01-31") from exc
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
