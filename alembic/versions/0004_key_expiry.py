"""Expiry and rotation of API keys.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("expires_at", Time))
    op.add_column("api_keys", sa.Column("rotated_at", Time))
    op.add_column("api_keys", sa.Column("previous_hash", sa.String(64)))
    op.add_column("api_keys", sa.Column("previous_expires_at", Time))


def downgrade() -> None:
    # In one copy of the table on SQLite, whose older versions cannot drop a column.
    with op.batch_alter_table("api_keys") as table:
        for name in ("previous_expires_at", "previous_hash", "rotated_at", "expires_at"):
            table.drop_column(name)
