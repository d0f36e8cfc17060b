"""Collections, items, images, rejects, encoders, vectors, generations, change log, API keys.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Json = sa.JSON().with_variant(JSONB, "postgresql")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "collections",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_collections"),
        sa.UniqueConstraint("name", name="uq_collections_name"),
    )
    op.create_table(
        "items",
        sa.Column("id", Id, nullable=False),
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("item_id", sa.String(512), nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("attributes", Json, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_items_collection_id"),
        sa.UniqueConstraint("collection_id", "item_id", name="uq_items_collection_id_item_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "images",
        sa.Column("id", Id, nullable=False),
        sa.Column("item_pk", Id, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("mask_uri", sa.Text),
        sa.Column("sha256", sa.String(64)),
        sa.Column("size", sa.BigInteger),
        sa.Column("mtime_ns", sa.BigInteger),
        sa.Column("width", sa.Integer),
        sa.Column("height", sa.Integer),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.ForeignKeyConstraint(["item_pk"], ["items.id"], name="fk_images_item_pk", ondelete="CASCADE"),
        sa.UniqueConstraint("item_pk", "uri", name="uq_images_item_pk_uri"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rejects",
        sa.Column("id", Id, nullable=False),
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text),
        sa.Column("image", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rejects"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_rejects_collection_id"),
    )
    op.create_index("ix_rejects_collection_id_source", "rejects", ["collection_id", "source"])
    op.create_table(
        "encoders",
        sa.Column("encoder_id", sa.String(64), nullable=False),
        sa.Column("family", sa.String(64), nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("metric", sa.String(16), nullable=False),
        sa.Column("config", Json, nullable=False),
        sa.Column("card", Json, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("encoder_id", name="pk_encoders"),
    )
    op.create_table(
        "vectors",
        sa.Column("image_id", Id, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("encoder_id", sa.String(64), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("image_id", "sha256", "encoder_id", name="pk_vectors"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_vectors_image_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.encoder_id"], name="fk_vectors_encoder_id"),
    )
    op.create_table(
        "generations",
        sa.Column("id", Id, nullable=False),
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("encoder_id", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("recall_at_10", sa.Float, nullable=False),
        sa.Column("factory", sa.String(64), nullable=False),
        sa.Column("watermark", sa.BigInteger, nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("activated_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_generations"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_generations_collection_id"),
        sa.ForeignKeyConstraint(["encoder_id"], ["encoders.encoder_id"], name="fk_generations_encoder_id"),
        sa.UniqueConstraint("collection_id", "number", name="uq_generations_collection_id_number"),
    )
    op.create_table(
        "changes",
        sa.Column("id", Id, nullable=False),
        sa.Column("collection_id", Id, nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("item_pk", sa.BigInteger),
        sa.Column("item_id", sa.Text),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name="fk_changes_collection_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_collection_id_id", "changes", ["collection_id", "id"])
    op.create_table(
        "api_keys",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("revoked_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("name", name="uq_api_keys_name"),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
    )


def downgrade() -> None:
    op.drop_table("api_keys")
    op.drop_index("ix_changes_collection_id_id", "changes")
    op.drop_table("changes")
    op.drop_table("generations")
    op.drop_table("vectors")
    op.drop_table("encoders")
    op.drop_index("ix_rejects_collection_id_source", "rejects")
    op.drop_table("rejects")
    op.drop_table("images")
    op.drop_table("items")
    op.drop_table("collections")
