"""The catalogue's tables. `alembic/versions` creates them; a test checks that both agree."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

REVISION = "0006"  # the newest file in alembic/versions; opening an up-to-date database does not import alembic

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Json(TypeDecorator[Any]):
    """JSON in SQLite and JSONB in PostgreSQL, whose dialect is imported only for a PostgreSQL database."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return dialect.type_descriptor(JSON())
        from sqlalchemy.dialects.postgresql import JSONB

        return dialect.type_descriptor(JSONB())


# SQLite generates values only for INTEGER primary keys.
Id = BigInteger().with_variant(Integer, "sqlite")
Time = DateTime(timezone=True)

collections = Table(
    "collections",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_at", Time, nullable=False),
    # `indexer.vectors.IndexOptions`; null leaves the choice to the product.
    Column("index_kind", String(16)),
    Column("index_recall", Float),
    Column("index_memory", BigInteger),
)

items = Table(
    "items",
    metadata,
    Column("id", Id, primary_key=True),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("item_id", String(512), nullable=False),
    Column("title", Text),
    Column("attributes", Json, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
    UniqueConstraint("collection_id", "item_id"),
    sqlite_autoincrement=True,
)

tombstones = Table(  # items deleted by a person, which indexing leaves out
    "tombstones",
    metadata,
    Column("collection_id", ForeignKey("collections.id"), primary_key=True),
    Column("item_id", String(512), primary_key=True),
    Column("deleted_at", Time, nullable=False),
)

images = Table(
    "images",
    metadata,
    Column("id", Id, primary_key=True),
    Column("item_pk", ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
    Column("uri", Text, nullable=False),
    Column("mask_uri", Text),
    Column("sha256", String(64)),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("status", String(16), nullable=False),
    Column("reason", Text),
    Column("source", Text),  # path of the source that it belongs to, or `records.OVER_HTTP`
    UniqueConstraint("item_pk", "uri"),
    # Index files refer to images by id, so an id must never be reused.
    sqlite_autoincrement=True,
)

rejects = Table(
    "rejects",
    metadata,
    Column("id", Id, primary_key=True),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("item_id", Text),
    Column("image", Text),
    Column("reason", Text, nullable=False),
    Column("at", Time, nullable=False),
    Index("ix_rejects_collection_id_source", "collection_id", "source"),
)

encoders = Table(
    "encoders",
    metadata,
    Column("encoder_id", String(64), primary_key=True),
    Column("family", String(64), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("metric", String(16), nullable=False),
    Column("config", Json, nullable=False),
    Column("card", Json, nullable=False),
    Column("created_at", Time, nullable=False),
)

vectors = Table(
    "vectors",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("encoder_id", ForeignKey("encoders.encoder_id"), primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)

generations = Table(
    "generations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("encoder_id", ForeignKey("encoders.encoder_id"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("count", Integer, nullable=False),
    Column("recall_at_10", Float, nullable=False),
    Column("factory", String(64), nullable=False),
    Column("watermark", BigInteger, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("created_at", Time, nullable=False),
    Column("activated_at", Time),
    UniqueConstraint("collection_id", "number"),
)

changes = Table(
    "changes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("at", Time, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("item_pk", BigInteger),
    Column("item_id", Text),
    # A live change is searchable at once, one of `nitamono index` with the next generation.
    Column("live", Boolean, nullable=False),
    Index("ix_changes_collection_id_id", "collection_id", "id"),
    sqlite_autoincrement=True,
)

retrains = Table(
    "retrains",
    metadata,
    Column("id", Id, primary_key=True),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("plan", Json, nullable=False),
    Column("decision", Json),
    Column("generation", Integer),
    Column("created_at", Time, nullable=False),
    Column("ended_at", Time),
    UniqueConstraint("collection_id", "number"),
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("collection_id", ForeignKey("collections.id"), primary_key=True),
    Column("encoder_id", ForeignKey("encoders.encoder_id"), primary_key=True),
    Column("content", Json, nullable=False),
    Column("created_at", Time, nullable=False),
)

recent_queries = Table(
    "recent_queries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("encoder_id", ForeignKey("encoders.encoder_id"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("at", Time, nullable=False),
    Index("ix_recent_queries_collection_id_encoder_id", "collection_id", "encoder_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("scope", String(16), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("created_at", Time, nullable=False),
    Column("revoked_at", Time),
    Column("expires_at", Time),
    Column("rotated_at", Time),
    Column("previous_hash", String(64)),
    Column("previous_expires_at", Time),
)
