"""Items deleted by a person, which indexing leaves out.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "tombstones",
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("item_id", sa.String(512), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "item_id", name="pk_tombstones"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_tombstones_collection_id"),
    )


def downgrade() -> None:
    op.drop_table("tombstones")
