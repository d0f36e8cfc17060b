"""The source that each image belongs to.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("source", sa.Text))
    # Uploads are blobs of items that a live write added; other images get their source when it is indexed next.
    op.execute(
        "UPDATE images SET source = 'http:' WHERE uri LIKE 'blob:%' AND item_pk IN "
        "(SELECT item_pk FROM changes WHERE live AND kind IN ('added', 'updated'))"
    )


def downgrade() -> None:
    op.drop_column("images", "source")
