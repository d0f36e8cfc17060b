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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from indexer.catalogue import onnx_files
from indexer.catalogue.catalogue import Catalogue
from indexer.catalogue.disk import writing
from indexer.catalogue.engine import Database
from indexer.catalogue.failures import WAY_BACK
from indexer.catalogue.migrations import migrate
from indexer.catalogue.records import EncoderRecord
from indexer.errors import BusyError, CorruptError, IndexerError, LostCatalogueError, MismatchError, NotFoundError
from indexer.vectors.engines import ENGINES, Engine
from training.errors import EncoderError
from training.files import publish_directory, publish_file
from training.reference import (
    CARD_FILE,
    ENCODER_FILES,
    ONNX_FILE,
    EncoderDescription,
    describe_any,
    read_json,
)

BLOB_SCHEME = "blob:"
CATALOGUE_FILE = "catalogue.sqlite"


def blob_uri(data: bytes) -> str:
    """The URI of bytes that a home stores; see `Home.add_blob`."""
    return BLOB_SCHEME + hashlib.sha256(data).hexdigest()


class Home:
    """An open home directory; close it, or use it as a context manager."""

    def __init__(self, path: Path, catalogue: Catalogue, vectors: Engine = "faiss") -> None:
        """`vectors` is the engine of the generations that are built."""
        self.path = path
        self.catalogue = catalogue
        self.vectors = vectors

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        database_url: str | None = None,
        vectors: Engine | None = None,
        create: bool = False,
        write_wait: float | None = None,
    ) -> Home:
        """Open a home and migrate its database to this version's schema.

        Args:
            database_url: SQLAlchemy URL; default: NITAMONO_DATABASE_URL, or else SQLite in the home.
            vectors: engine of the generations that are built; default: NITAMONO_VECTORS, or else FAISS.
            create: create the home if it does not exist.
            write_wait: seconds that a write waits for other processes; None waits 30 s on SQLite, and for ever on
                PostgreSQL.

        Raises:
            NotFoundError: the home does not exist and `create` is not set.
            MismatchError: a newer version wrote the database.
            LostCatalogueError: the home has files, but its catalogue is missing or empty.
            IndexerError: the directory or the database cannot be used.
        """
        path = Path(path).absolute()
        if not create and not path.is_dir():
            raise NotFoundError(f"no home at {path}; create one with `nitamono index SOURCE --home {path}`")
        url = database_url or os.environ.get("NITAMONO_DATABASE_URL")
        if url is None:
            _check_catalogue_exists(path)
            url = f"sqlite:///{path / CATALOGUE_FILE}"
        engine = _engine(vectors or os.environ.get("NITAMONO_VECTORS") or "faiss")
        home = cls(path, Catalogue(Database.open(url, write_wait=write_wait)), engine)
        try:
            if engine == "pgvector":
                home.catalogue.vector_tables.check_database()
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise IndexerError(f"home {path} cannot be created ({exc.strerror})") from exc
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

    def add_encoder(self, described: EncoderDescription) -> bool:
        """Keep a copy of an encoder, so that this home needs nothing from outside.

        An encoder that the home has already keeps its card, which may have been amended, and gets an ONNX file if it
        had none. A damaged copy is replaced.

        Returns:
            False if the ONNX file could not be compared with the weights, because PyTorch is not installed.

        Raises:
            MismatchError, MissingExtraError: see `indexer.catalogue.onnx_files.check_given`.
        """
        encoder_id = described.encoder_id
        known = self.catalogue.encoders.get(encoder_id)
        recorded = onnx_files.recorded_checksum(known)
        compared = onnx_files.check_given(described, recorded, is_known=known is not None)
        has_new_onnx = recorded is None and onnx_files.has_separate_onnx(described)
        if (known is not None and has_new_onnx) or not self.has_sound_encoder(encoder_id):
            self._copy_encoder(described, with_onnx=True)
        self._record_encoder(described, new_onnx=has_new_onnx)
        return compared

    def has_sound_encoder(self, encoder_id: str) -> bool:
        """Whether this home has an undamaged copy of an encoder."""
        try:
            self.verified_encoder(encoder_id)
        except (EncoderError, MismatchError, CorruptError):
            return False
        return True

    def restore_encoder(self, described: EncoderDescription) -> None:
        """Write the home's copy of a known encoder from its directory, with the card that the catalogue has of it.

        Raises:
            MismatchError: the encoder's ONNX file is not the registered one.
        """
        recorded = onnx_files.recorded_checksum(self.catalogue.encoders.get(described.encoder_id))
        if recorded is not None:
            onnx_files.check_given(described, recorded, is_known=True)
        self._copy_encoder(described, with_onnx=recorded is not None)

    def restore_onnx(self, encoder_id: str) -> bool:
        """Export the ONNX file of a stored encoder again from its weights, and record its checksum.

        Returns:
            False if the weights are damaged, or PyTorch is not installed.
        """
        directory = self.encoder_directory(encoder_id)
        try:
            if describe_any(directory).encoder_id != encoder_id or not onnx_files.export(directory):
                return False
        except EncoderError:
            return False
        self._record_encoder(describe_any(directory), new_onnx=True)
        return True

    def amend_card(self, encoder_id: str, **values: Any) -> None:
        """Set values in the card of a stored encoder: in `card.json` and in the catalogue.

        Nothing else writes the card of a stored encoder. A kill in between leaves the catalogue behind `card.json`;
        the next `add_encoder` brings it up to date.
        """
        from training.card import amend_card  # imports pydantic

        with self.lock(f"encoder-{encoder_id}", wait=True):
            amend_card(self.encoder_directory(encoder_id), **values)
            self._record_encoder(self.encoder(encoder_id))

    def encoder(self, encoder_id: str) -> EncoderDescription:
        """The stored copy of an encoder, checked against its id.

        The contents of its ONNX file are compared with the card by whoever loads it, which `verified_encoder` does not
        wait for.

        Raises:
            CorruptError: files of the copy are missing or damaged.
            MismatchError: the copy is of another encoder.
        """
        try:
            described = describe_any(self.encoder_directory(encoder_id))
        except EncoderError as exc:
            raise CorruptError(f"{exc}; run `nitamono repair`") from exc
        known = self.catalogue.encoders.get(encoder_id)
        onnx_files.check_copy(described, onnx_files.recorded_checksum(known), is_known=known is not None)
        if described.encoder_id != encoder_id:
            raise MismatchError(
                f"{described.directory}: holds encoder {described.encoder_id[:12]}, not {encoder_id[:12]} as its "
                "directory says; index again with `nitamono index --encoder REF`"
            )
        return described

    def verified_encoder(self, encoder_id: str) -> EncoderDescription:
        """Like `encoder`, with the contents of the ONNX file compared too."""
        described = self.encoder(encoder_id)
        onnx_files.check_contents(described)
        return described

    def _copy_encoder(self, described: EncoderDescription, *, with_onnx: bool) -> None:
        """Copy an encoder directory; `with_onnx` False leaves out an ONNX file that the id does not cover."""
        from training.card import card_bytes  # imports pydantic

        with_onnx = with_onnx and onnx_files.has_separate_onnx(described)
        files = {
            name: (described.directory / name).read_bytes()
            for name in ENCODER_FILES
            if (described.directory / name).exists()
        }
        if onnx_files.has_separate_onnx(described) and not with_onnx:
            del files[ONNX_FILE]
        known = self.catalogue.encoders.get(described.encoder_id)
        card = dict(known.card if known is not None and known.card else described.card)
        card.pop(onnx_files.ONNX_CHECKSUM, None)
        if with_onnx:
            card[onnx_files.ONNX_CHECKSUM] = described.card[onnx_files.ONNX_CHECKSUM]
        if CARD_FILE in files and card != described.card:
            files[CARD_FILE] = card_bytes(card)
        target = self.encoder_directory(described.encoder_id)
        with writing(target):
            publish_directory(target, files)

    def _record_encoder(self, described: EncoderDescription, *, new_onnx: bool = False) -> None:
        """Record an encoder in the catalogue with the card of the home's copy."""
        path = self.encoder_directory(described.encoder_id) / CARD_FILE
        card = read_json(path) if path.exists() else {}
        self.catalogue.encoders.put(replace(EncoderRecord.of(described), card=card), new_onnx=new_onnx)

    def add_blob(self, data: bytes) -> str:
        """Store bytes durably under their SHA-256; returns their URI, see `uri_path`.

        Raises:
            DiskFullError, ReadOnlyError: see `indexer.catalogue.disk`.
        """
        uri = blob_uri(data)
        path = self.uri_path(uri)
        if not path.exists():
            with writing(path):
                publish_file(path, data)
        return uri

    def remove_unused_blobs(self, uris: Iterable[str]) -> None:
        """Remove stored photos that no image refers to.

        Writers that are storing the same photo at this moment store it again after their commit, see `put_item`.
        """
        with self.catalogue.images.no_writes() as used:
            for uri in set(uris) - used:
                self.uri_path(uri).unlink(missing_ok=True)

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
    def lock(self, name: str, *, wait: bool = False, busy: str = "") -> Iterator[None]:
        """Hold a lock among processes; it is released when the process ends, even by a kill.

        Args:
            busy: what the error says that the other process does; by default, that it is writing `name`.

        Raises:
            BusyError: another process holds it and `wait` is not set.
            ReadOnlyError: the home is read-only.
        """
        path = self.path / "locks" / f"{name}.lock"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            opened = path.open("a+")
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as exc:
                file.seek(0)
                holder = file.read().strip() or "another"
                busy = busy or f"{name} is being written"
                raise BusyError(f"{busy} by process {holder}; try again when that has ended") from exc
            with suppress(OSError):  # on a full disk, the lock holds without the number of its process
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            yield


def _engine(name: str) -> Engine:
    for engine in ENGINES:
        if name == engine:
            return engine
    raise IndexerError(f"NITAMONO_VECTORS is {name!r}; write {' or '.join(ENGINES)}")


def _check_catalogue_exists(home: Path) -> None:
    """Check that a home that has been used still has its catalogue: opening SQLite would create an empty one."""
    file = home / CATALOGUE_FILE
    if file.exists() and file.stat().st_size:
        return
    if any(any(home.glob(pattern)) for pattern in ("encoders/*", "collections/*", "blobs/*")):
        state = "empty" if file.exists() else "missing"
        raise LostCatalogueError(
            f"{file} is {state}, but the home has been used; {WAY_BACK}; or, if its catalogue is in another database, "
            "set NITAMONO_DATABASE_URL"
        )
