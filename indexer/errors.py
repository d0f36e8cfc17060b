"""Errors of the indexer layer.

NitamonoError
└── IndexerError
    ├── NotFoundError           no such collection, item, image or generation
    ├── InvalidRequestError     a k, offset, filter, region, vector or item with an invalid value; `.field` names it
    ├── BusyError               another process is writing the same collection or catalogue
    ├── CalibrationError        a collection has too little data to calibrate
    ├── PruneError              a source may have more items than it seems to, so none is removed
    ├── MismatchError           an encoder and an index, or a database and this version, do not match
    └── CorruptError            stored files do not match their checksums or the catalogue
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
