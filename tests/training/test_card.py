"""Writing, reading and amending `card.json`."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.baselines import baseline
from training.card import amend_card, card_bytes, read_card
from training.errors import EncoderError
from training.reference import describe_encoder


def test_an_amended_card_keeps_its_other_values_and_the_encoder_its_id(tmp_path: Path) -> None:
    directory = baseline("pixels").save(tmp_path / "pixels")
    before = read_card(directory)
    described = describe_encoder(directory)
    card = amend_card(directory, evaluation={"map": 0.5}, name="Bücher")
    assert card == read_card(directory) == {**before, "evaluation": {"map": 0.5}, "name": "Bücher"}
    assert (directory / "card.json").read_bytes() == card_bytes(card)
    assert describe_encoder(directory).encoder_id == described.encoder_id


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="card.json: cannot be read"):
        amend_card(tmp_path, name="x")
