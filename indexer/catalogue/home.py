"""The home directory: everything that one installation stores.

catalogue.sqlite                       the catalogue (unless a database URL names another)
encoders/<encoder_id>/                 a copy of every encoder in use
collections/<name>/generations/<n>/    immutable indexes
blobs/<ab>/<sha256>                    photos uploaded over HTTP
retrains/<name>-<n>/                   what a retraining trains and measures
locks/                                 who is writing
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa

from indexer.catalogue.catalogue import Catalogue, create_engine
from indexer.catalogue.records import EncoderRecord
from indexer.catalogue.schema import REVISION
from indexer.errors import BusyError, IndexerError, MismatchError, NotFoundError
from training.files import publish_directory, publish_file
from training.reference import ENCODER_FILES, EncoderDescription, describe_encoder

BLOB_SCHEME = "blob:"


class Home:
    """An open home directory; close it, or use it as a context manager."""

    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        self.path = path
        self.catalogue = catalogue

    @classmethod
    def open(cls, path: Path | str, *, database_url: str | None = None, create: bool = False) -> Home:
        """Open a home, bringing its database to this version's schema.

        Args:
            path: the directory.
            database_url: SQLAlchemy URL; the default is SQLite in the home, or NITAMONO_DATABASE_URL.
            create: make the home where there is none.

        Raises:
            NotFoundError: there is no home and `create` is not set.
            MismatchError: the database was written by a newer version.
            IndexerError: the directory or the database cannot be used.
        """
        path = Path(path).absolute()
        if not create and not path.is_dir():
            raise NotFoundError(f"no home at {path}; make one with `nitamono index SOURCE --home {path}`")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise IndexerError(f"home {path} cannot be made ({exc.strerror})") from exc
        url = database_url or os.environ.get("NITAMONO_DATABASE_URL") or f"sqlite:///{path / 'catalogue.sqlite'}"
        home = cls(path, Catalogue(create_engine(url)))
        try:
            home._migrate()
        except sa.exc.DBAPIError as exc:
            home.close()
            reason = str(exc.orig).splitlines()[0] if exc.orig else type(exc).__name__
            raise IndexerError(f"the catalogue of {path} cannot be opened ({reason})") from exc
        return home

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.catalogue.engine.dispose()

    def generations_directory(self, collection: str) -> Path:
        return self.path / "collections" / collection / "generations"

    def generation_directory(self, collection: str, number: int) -> Path:
        return self.generations_directory(collection) / f"{number:06d}"

    def retrain_directory(self, collection: str, number: int) -> Path:
        return self.path / "retrains" / f"{collection}-{number:04d}"

    def encoder_directory(self, encoder_id: str) -> Path:
        return self.path / "encoders" / encoder_id

    def add_encoder(self, described: EncoderDescription) -> None:
        """Keep a copy of an encoder, so that this home needs nothing from outside."""
        directory = self.encoder_directory(described.encoder_id)
        if not directory.is_dir():
            files = {
                name: (described.directory / name).read_bytes()
                for name in ENCODER_FILES
                if (described.directory / name).exists()
            }
            publish_directory(directory, files)
        self.catalogue.add_encoder(EncoderRecord.of(described))

    def encoder(self, encoder_id: str) -> EncoderDescription:
        """The stored copy of an encoder, checked against its id."""
        described = describe_encoder(self.encoder_directory(encoder_id))
        if described.encoder_id != encoder_id:
            raise MismatchError(
                f"{described.directory}: holds encoder {described.encoder_id[:12]}, not the {encoder_id[:12]} it is "
                "named for; index again with `nitamono index --encoder REF`"
            )
        return described

    def add_blob(self, data: bytes) -> str:
        """Store bytes durably under their SHA-256; returns the URI that `read_uri` takes."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._blob_path(sha256)
        if not path.exists():
            publish_file(path, data)
        return BLOB_SCHEME + sha256

    def uri_path(self, uri: str) -> Path:
        """Where the file of an image lies: a blob of this home, or a path."""
        return self._blob_path(uri.removeprefix(BLOB_SCHEME)) if uri.startswith(BLOB_SCHEME) else Path(uri)

    def _blob_path(self, sha256: str) -> Path:
        return self.path / "blobs" / sha256[:2] / sha256

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold a lock among processes; it goes with its holder, however that ends.

        Raises:
            BusyError: another process holds it and `wait` is not set.
        """
        path = self.path / "locks" / f"{name}.lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as exc:
                file.seek(0)
                holder = file.read().strip() or "another"
                raise BusyError(f"{name} is being written by process {holder}; try again when it has ended") from exc
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def _migrate(self) -> None:
        if self._revision() == REVISION:
            return
        with self.lock("schema", wait=True):
            found = self._revision()
            if found == REVISION:
                return
            from alembic import command, config
            from alembic.script import ScriptDirectory
            from alembic.util import CommandError

            settings = config.Config()
            settings.set_main_option("script_location", str(migrations_directory()))
            try:
                if found is not None:
                    ScriptDirectory.from_config(settings).get_revision(found)
            except CommandError as exc:
                raise MismatchError(
                    f"the catalogue of {self.path} has schema {found}, this version knows up to {REVISION}; "
                    "upgrade nitamono"
                ) from exc
            with self.catalogue.engine.connect().execution_options(writes=True) as connection, connection.begin():
                settings.attributes["connection"] = connection
                command.upgrade(settings, "head")

    def _revision(self) -> str | None:
        with self.catalogue.read() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            revision: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return revision


def migrations_directory() -> Path:
    """The migrations beside the packages (a checkout) or where the wheel put them."""
    import sysconfig

    beside = Path(__file__).parents[2] / "alembic"
    is_checkout = (beside / "env.py").is_file()  # beside installed packages lies the library alembic itself
    return beside if is_checkout else Path(sysconfig.get_path("data")) / "share" / "nitamono" / "alembic"
