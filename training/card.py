"""`card.json`, the file of an encoder or finder directory that describes it to people. Only this module writes it.

The `encoder_id` does not depend on the card, so values may be added to it later. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.files import publish_file
from training.reference import CARD_FILE, read_json


def card_bytes(card: Mapping[str, Any]) -> bytes:
    """The contents of `card.json`."""
    return (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()


def read_card(directory: Path) -> dict[str, Any]:
    """The card of a directory; EncoderError if it is missing or damaged."""
    return read_json(directory / CARD_FILE)


def amend_card(directory: Path, **values: Any) -> dict[str, Any]:
    """Set values on the card of a directory; returns the new card."""
    card = {**read_card(directory), **values}
    publish_file(directory / CARD_FILE, card_bytes(card))
    return card
