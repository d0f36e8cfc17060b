"""`nitamono calibrate`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from indexer.errors import InvalidRequestError
from indexer.options import DEFAULT_HOME, CollectionOption, DeviceOption, HomeOption
from training.console import JsonOption, say


def calibrate(
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    device: DeviceOption = "cpu",
    present: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|auto",
            help="Fraction of searches whose product is in the catalogue; auto estimates it from recent queries.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Learn how scores translate into probabilities.

    Fits, without labels, the probability that a result is the same product as the query, on the collection's own
    photos. Running servers use it from their next search. `nitamono index` calibrates by itself the first time and
    whenever the number of images has doubled; --present is remembered.

    \b
    Examples:
      nitamono calibrate
      nitamono calibrate --collection shop --present 0.5
    """
    from indexer.calibrate.calibrate import calibrate as calibrate_collection
    from indexer.catalogue.home import Home
    from training.device import check_device

    check_device(device)
    share = None if present is None else _share(present)
    with Home.open(home) as opened:
        found = calibrate_collection(opened, collection, present=share, device=device)
    (low, high), (low_first, high_first) = found.ece_ci, found.ece_first_ci
    line = (
        f"{collection!r} is calibrated ({found.kind}, margin share {found.curve.margin_share:.2f}, truth "
        f"{found.truth}) on {found.queries} queries with {found.pairs} pairs, {found.positives} of them of the same "
        f"product; assuming that {found.present:.1%} of searches have their product in the catalogue: "
        f"ECE {found.ece:.4f} [{low:.4f} {high:.4f}], {found.ece_chance:.4f} expected by chance; ECE of first hits "
        f"{found.ece_first:.4f} [{low_first:.4f} {high_first:.4f}], {found.ece_first_chance:.4f} expected by chance"
    )
    say({"collection": collection, **found.to_json()}, json_output, line)


def _share(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError as exc:
        raise InvalidRequestError("present", f"present {text!r} must be a fraction such as 0.8, or auto") from exc
