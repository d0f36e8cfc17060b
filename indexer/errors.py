"""Errors of the indexer layer.

NitamonoError
└── IndexerError
    ├── NotFoundError           no such collection, item, image or generation
    ├── InvalidRequestError     a k, offset, filter, region, vector or item that cannot be; `.field` names it
    ├── BusyError               another process holds the lock
    ├── CalibrationError        a collection has too little to learn probabilities from
    ├── MismatchError           an encoder and an index, or a database and this version, do not belong together
    └── CorruptError            stored files do not match their checksums or the catalogue
"""

from training.errors import NitamonoError


class IndexerError(NitamonoError):
    """Base of the indexer's errors."""


class NotFoundError(IndexerError):
    """No such collection, item, image or generation."""


class InvalidRequestError(IndexerError):
    """A value that cannot be, in a request that is otherwise understood."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class BusyError(IndexerError):
    """Another process is writing what this one would write."""


class CalibrationError(IndexerError):
    """A collection has too few items, photos or pairs to learn probabilities from."""


class MismatchError(IndexerError):
    """Two things that must be of one encoder, or of one version, are not."""


class CorruptError(IndexerError):
    """Stored files do not match their checksums, or the catalogue."""
