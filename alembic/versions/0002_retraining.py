"""Retrains with their decisions, calibrations of scores, and a sample of recent queries.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Json = sa.JSON().with_variant(JSONB, "postgresql")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "retrains",
        sa.Column("id", Id, nullable=False),
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("plan", Json, nullable=False),
        sa.Column("decision", Json),
        sa.Column("generation", sa.Integer),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("ended_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_retrains"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_retrains_collection_id"),
        sa.UniqueConstraint("collection_id", "number", name="uq_retrains_collection_id_number"),
    )
    op.create_table(
        "calibrations",
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("encoder_id", sa.String(64), nullable=False),
        sa.Column("content", Json, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "encoder_id", name="pk_calibrations"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_calibrations_collection_id"),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.encoder_id"], name="fk_calibrations_encoder_id"),
    )
    op.create_table(
        "recent_queries",
        sa.Column("id", Id, nullable=False),
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("encoder_id", sa.String(64), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_recent_queries"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_recent_queries_collection_id"),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.encoder_id"], name="fk_recent_queries_encoder_id"),
    )
    op.create_index("ix_recent_queries_collection_id_encoder_id", "recent_queries", ["collection_id", "encoder_id"])


def downgrade() -> None:
    for table in ("recent_queries", "calibrations", "retrains"):
        op.drop_table(table)
