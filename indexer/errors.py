"""Errors of the indexer layer.

NitamonoError
└── IndexerError
    ├── NotFoundError           no such collection, item, image or generation
    ├── InvalidRequestError     a k, offset, filter, region, vector or item with an invalid value; `.field` names it
    ├── BusyError               another process is writing the same collection or catalogue
    ├── CalibrationError        a collection has too little data to calibrate
    ├── PruneError              a source may have more items than it seems to, so none is removed
    ├── MismatchError           an encoder and an index, or a database and this version, do not match
    ├── CorruptError            stored files do not match their checksums or the catalogue
    ├── CatalogueError          the catalogue's database cannot be used, for example because it cannot be reached
    │   ├── DamagedCatalogueError   it is damaged
    │   └── LostCatalogueError      its file was deleted or replaced
    ├── DiskFullError           nothing can be stored, because the disk or a quota is full
    └── ReadOnlyError           nothing can be stored, because the home is read-only
"""

from training.errors import NitamonoError


class IndexerError(NitamonoError):
    """Base of the indexer's errors."""


class NotFoundError(IndexerError):
    """No such collection, item, image or generation."""


class InvalidRequestError(IndexerError):
    """A well-formed request with an invalid value; `field` names the parameter."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class BusyError(IndexerError):
    """Another process is writing the same collection or catalogue."""


class CalibrationError(IndexerError):
    """A collection has too few items, photos or pairs to calibrate."""


class PruneError(IndexerError):
    """A source may have more items than it seems to, or lacks more than a limit, so none is removed."""


class MismatchError(IndexerError):
    """Two things that must share an encoder or a version do not."""


class CorruptError(IndexerError):
    """Stored files do not match their checksums, or the catalogue."""


class CatalogueError(IndexerError):
    """The catalogue's database cannot be used."""


class DamagedCatalogueError(CatalogueError):
    """The catalogue's database is damaged."""


class LostCatalogueError(CatalogueError):
    """The file of the catalogue's database was deleted or replaced."""


class DiskFullError(IndexerError):
    """Nothing can be stored, because the disk or a quota is full."""


class ReadOnlyError(IndexerError):
    """Nothing can be stored, because the home is read-only."""
