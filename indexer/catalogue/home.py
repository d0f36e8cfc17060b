"""The home directory, which stores everything of one installation.

catalogue.sqlite                       the catalogue (unless a database URL is set)
encoders/<encoder_id>/                 a copy of every encoder of the catalogue
collections/<name>/generations/<n>/    immutable indexes
blobs/<ab>/<sha256>                    photos uploaded over HTTP
thumbnails/<ab>/                       thumbnails that the service has made; may be deleted at any time
retrains/<name>-<n>/                   models and evidence of a retraining
drift/<name>.json                      the last report of `nitamono drift`
locks/                                 lock files with the writing process
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from indexer.catalogue.catalogue import Catalogue
from indexer.catalogue.encoders import ONNX_CHECKSUM
from indexer.catalogue.engine import create_engine
from indexer.catalogue.migrations import migrate
from indexer.catalogue.records import EncoderRecord
from indexer.errors import BusyError, CorruptError, IndexerError, MismatchError, NotFoundError
from training.errors import EncoderError
from training.files import publish_directory, publish_file
from training.reference import (
    CARD_FILE,
    ENCODER_FILES,
    IMPORTED,
    ONNX_FILE,
    EncoderDescription,
    describe_encoder,
    read_json,
    shipped_onnx,
)

BLOB_SCHEME = "blob:"


def blob_uri(data: bytes) -> str:
    """The URI of bytes that a home stores; see `Home.add_blob`."""
    return BLOB_SCHEME + hashlib.sha256(data).hexdigest()


class Home:
    """An open home directory; close it, or use it as a context manager."""

    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        self.path = path
        self.catalogue = catalogue

    @classmethod
    def open(
        cls, path: Path | str, *, database_url: str | None = None, create: bool = False, write_wait: float | None = None
    ) -> Home:
        """Open a home and migrate its database to this version's schema.

        Args:
            database_url: SQLAlchemy URL; default: NITAMONO_DATABASE_URL, or else SQLite in the home.
            create: create the home if it does not exist.
            write_wait: seconds that a write waits for other processes; None waits 30 s on SQLite, and for ever on
                PostgreSQL.

        Raises:
            NotFoundError: the home does not exist and `create` is not set.
            MismatchError: a newer version wrote the database.
            IndexerError: the directory or the database cannot be used.
        """
        path = Path(path).absolute()
        if not create and not path.is_dir():
            raise NotFoundError(f"no home at {path}; create one with `nitamono index SOURCE --home {path}`")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise IndexerError(f"home {path} cannot be created ({exc.strerror})") from exc
        url = database_url or os.environ.get("NITAMONO_DATABASE_URL") or f"sqlite:///{path / 'catalogue.sqlite'}"
        home = cls(path, Catalogue(create_engine(url, write_wait=write_wait)))
        try:
            migrate(home.catalogue.database, path, lambda: home.lock("schema", wait=True))
        except BaseException:
            home.close()
            raise
        return home

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.catalogue.close()

    def generations_directory(self, collection: str) -> Path:
        return self.path / "collections" / collection / "generations"

    def generation_directory(self, collection: str, number: int) -> Path:
        return self.generations_directory(collection) / f"{number:06d}"

    def retrain_directory(self, collection: str, number: int) -> Path:
        return self.path / "retrains" / f"{collection}-{number:04d}"

    def drift_file(self, collection: str) -> Path:
        return self.path / "drift" / f"{collection}.json"

    def encoder_directory(self, encoder_id: str) -> Path:
        return self.path / "encoders" / encoder_id

    def add_encoder(self, described: EncoderDescription) -> None:
        """Keep a copy of an encoder, so that this home needs nothing from outside.

        An encoder that the home has already keeps its card, which may have been amended. A damaged copy is replaced.

        Raises:
            MismatchError: the encoder's ONNX file is not the registered one; see `check_onnx`.
        """
        self.check_onnx(described)
        if not self.has_sound_encoder(described.encoder_id):
            self.restore_encoder(described)
        self._record_encoder(described)

    def check_onnx(self, described: EncoderDescription) -> None:
        """Check that an encoder's ONNX file is the one that the catalogue, or this version, records for its id.

        The id covers the weights and encoder.json only, but the ONNX file is what embeds. The catalogue keeps its
        SHA-256 from the registration of the encoder; for a shipped encoder this version has it too.

        Raises:
            MismatchError: the file or its checksum on the card differs from the record.
        """
        path = described.directory / ONNX_FILE
        if described.family == IMPORTED or not path.is_file():
            return  # the id covers the file, or there is none
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        known = self.catalogue.encoders.get(described.encoder_id)
        expected = (described if known is None else known).card.get(ONNX_CHECKSUM)
        expected = shipped_onnx(described.encoder_id) or expected
        if found != expected or described.card.get(ONNX_CHECKSUM) != expected:
            raise MismatchError(
                f"{path}: is not the ONNX file that encoder {described.encoder_id[:12]} was registered with, so its "
                "vectors may differ; fetch the encoder again, or remove the file"
            )

    def has_sound_encoder(self, encoder_id: str) -> bool:
        """Whether this home has an undamaged copy of an encoder."""
        try:
            self.encoder(encoder_id)
        except (EncoderError, MismatchError, CorruptError):
            return False
        return True

    def restore_encoder(self, described: EncoderDescription) -> None:
        """Write the home's copy of an encoder from its directory, with the card that the catalogue has of it.

        Raises:
            MismatchError: the encoder's ONNX file is not the registered one; see `check_onnx`.
        """
        from training.card import card_bytes  # imports pydantic

        self.check_onnx(described)
        files = {
            name: (described.directory / name).read_bytes()
            for name in ENCODER_FILES
            if (described.directory / name).exists()
        }
        if (known := self.catalogue.encoders.get(described.encoder_id)) is not None and known.card:
            files[CARD_FILE] = card_bytes(known.card)
        publish_directory(self.encoder_directory(described.encoder_id), files)

    def amend_card(self, encoder_id: str, **values: Any) -> None:
        """Set values in the card of a stored encoder: in `card.json` and in the catalogue.

        Nothing else writes the card of a stored encoder. A kill in between leaves the catalogue behind `card.json`;
        the next `add_encoder` brings it up to date.
        """
        from training.card import amend_card  # imports pydantic

        with self.lock(f"encoder-{encoder_id}", wait=True):
            amend_card(self.encoder_directory(encoder_id), **values)
            self._record_encoder(self.encoder(encoder_id))

    def _record_encoder(self, described: EncoderDescription) -> None:
        """Record an encoder in the catalogue with the card of the home's copy."""
        path = self.encoder_directory(described.encoder_id) / "card.json"
        card = read_json(path) if path.exists() else {}
        self.catalogue.encoders.put(replace(EncoderRecord.of(described), card=card))

    def encoder(self, encoder_id: str) -> EncoderDescription:
        """The stored copy of an encoder, checked against its id.

        Raises:
            CorruptError: files of the copy are missing or damaged.
            MismatchError: the copy is of another encoder.
        """
        try:
            described = describe_encoder(self.encoder_directory(encoder_id))
        except EncoderError as exc:
            raise CorruptError(f"{exc}; run `nitamono repair`") from exc
        try:
            self.check_onnx(described)
        except MismatchError as exc:
            raise CorruptError(f"{exc}; run `nitamono repair`") from exc
        if described.encoder_id != encoder_id:
            raise MismatchError(
                f"{described.directory}: holds encoder {described.encoder_id[:12]}, not {encoder_id[:12]} as its "
                "directory says; index again with `nitamono index --encoder REF`"
            )
        return described

    def add_blob(self, data: bytes) -> str:
        """Store bytes durably under their SHA-256; returns their URI, see `uri_path`."""
        uri = blob_uri(data)
        path = self.uri_path(uri)
        if not path.exists():
            publish_file(path, data)
        return uri

    def uri_path(self, uri: str) -> Path:
        """The file of an image: a blob of this home, or a path outside."""
        return self._blob_path(uri.removeprefix(BLOB_SCHEME)) if uri.startswith(BLOB_SCHEME) else Path(uri)

    def has_file(self, uri: str) -> bool:
        """False if the file of an image does not exist; True if it does, or if that cannot be told."""
        try:
            os.stat(self.uri_path(uri) if uri.startswith(BLOB_SCHEME) else uri)  # a `Path` would cost more than `stat`
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass
        return True

    def _blob_path(self, sha256: str) -> Path:
        return self.path / "blobs" / sha256[:2] / sha256

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold a lock among processes; it is released when the process ends, even by a kill.

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
                raise BusyError(f"{name} is being written by process {holder}; try again when that has ended") from exc
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
