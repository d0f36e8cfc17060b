"""How the index of a collection is chosen.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collections", sa.Column("index_kind", sa.String(16)))
    op.add_column("collections", sa.Column("index_recall", sa.Float))
    op.add_column("collections", sa.Column("index_memory", sa.BigInteger))


def downgrade() -> None:
    for name in ("index_kind", "index_recall", "index_memory"):
        op.drop_column("collections", name)
