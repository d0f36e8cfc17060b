"""`nitamono calibrate`: what scores mean, as probabilities of the same product."""

from __future__ import annotations

from indexer.options import DEFAULT_HOME, CollectionOption, DeviceOption, HomeOption
from training.console import JsonOption, say


def calibrate(
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Learn from a collection's own photos what scores mean, as probabilities of the same product."""
    from indexer.calibration import calibrate as calibrate_collection
    from indexer.home import Home

    with Home.open(home) as opened:
        found = calibrate_collection(opened, collection, device=device)
    low, high = found.ece_ci
    line = (
        f"{collection!r} is calibrated ({found.kind}, truth {found.truth}): {found.queries} queries, {found.pairs} "
        f"pairs, {found.positives} of the same product; ECE {found.ece:.4f} [{low:.4f} {high:.4f}], of first hits "
        f"{found.ece_first:.4f}"
    )
    say({"collection": collection, **found.to_json()}, json_output, line)
