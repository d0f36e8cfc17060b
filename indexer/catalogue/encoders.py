"""Encoders that a home keeps a copy of."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy import select

from indexer.catalogue.engine import Database
from indexer.catalogue.onnx_files import ONNX_CHECKSUM
from indexer.catalogue.records import EncoderRecord
from indexer.catalogue.schema import encoders
from indexer.catalogue.values import now


@dataclass
class Encoders:
    database: Database

    def put(self, record: EncoderRecord, *, new_onnx: bool = False) -> None:
        """Add an encoder; one that is already known gets the record's card, the rest is fixed by its id.

        The ONNX file's checksum stays as first recorded, because loading compares the file with it.

        Args:
            new_onnx: record the checksum of the record's card instead.
        """
        same = encoders.c.encoder_id == record.encoder_id
        with self.database.write() as connection:
            known = connection.execute(select(encoders.c.card).where(same)).first()
            if known is None:
                connection.execute(sa.insert(encoders).values(**asdict(record), created_at=now()))
                return
            card = dict(record.card)
            if not new_onnx:
                card.pop(ONNX_CHECKSUM, None)
                card |= {name: value for name, value in known.card.items() if name == ONNX_CHECKSUM}
            if known.card != card:
                connection.execute(sa.update(encoders).where(same).values(card=card))

    def get(self, encoder_id: str) -> EncoderRecord | None:
        return next((record for record in self.all() if record.encoder_id == encoder_id), None)

    def all(self) -> list[EncoderRecord]:
        """The encoders, oldest first."""
        c = encoders.c
        query = select(c.encoder_id, c.family, c.dim, c.metric, c.config, c.card).order_by(c.created_at)
        with self.database.read() as connection:
            return [EncoderRecord(*row) for row in connection.execute(query)]
