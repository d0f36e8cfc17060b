"""Whether an encoder's ONNX file, which does the embedding, computes the vectors of the encoder's id.

The id covers weights and encoder.json. The catalogue and, for shipped encoders, this version record the SHA-256 of the
ONNX file. A file without a record is compared with the weights, which needs PyTorch.
"""

from __future__ import annotations

from pathlib import Path

from indexer.catalogue.records import EncoderRecord
from indexer.errors import CorruptError, MismatchError
from training.errors import EncoderError, MissingExtraError
from training.extras import extras
from training.files import sha256_of
from training.reference import IMPORTED, ONNX_FILE, EncoderDescription, shipped_onnx

ONNX_CHECKSUM = "onnx_sha256"  # on the card
FARTHEST = 1e-3  # difference of a vector's numbers from those of the weights; processors differ by less than 1e-4


def has_separate_onnx(described: EncoderDescription) -> bool:
    """Whether an encoder directory has an ONNX file that its id does not cover."""
    return described.family != IMPORTED and (described.directory / ONNX_FILE).is_file()


def recorded_checksum(known: EncoderRecord | None) -> str | None:
    """The checksum of an encoder's ONNX file in the catalogue."""
    return None if known is None else known.card.get(ONNX_CHECKSUM)


def check_given(described: EncoderDescription, recorded: str | None, *, is_known: bool) -> bool:
    """Check the ONNX file of an encoder that is to be registered; False if it was not compared with anything.

    Args:
        recorded: the checksum in the catalogue.
        is_known: whether the encoder is registered already, and so has embedded with its weights.

    Raises:
        MismatchError: the file is not the recorded one, or computes other vectors than the weights.
        MissingExtraError: a known encoder gets its first ONNX file, and PyTorch is not installed.
    """
    if not has_separate_onnx(described):
        return True
    path = described.directory / ONNX_FILE
    found = sha256_of(path)
    if found != described.card.get(ONNX_CHECKSUM):
        raise MismatchError(
            f"{path}: differs from the checksum in card.json; fetch the encoder again, or remove the file"
        )
    expected = shipped_onnx(described.encoder_id) or recorded
    if expected is None:
        return _agrees(described, is_needed=is_known)
    if found != expected:
        raise MismatchError(_differs(described))
    return True


def check_copy(described: EncoderDescription, recorded: str | None, *, is_known: bool) -> None:
    """Check that a home's copy has the recorded ONNX file, by its card; whoever loads the file compares it with that.

    Raises:
        CorruptError: the file is missing, or the card or the file is another one.
    """
    if described.family == IMPORTED:
        return
    expected = recorded if is_known else described.card.get(ONNX_CHECKSUM)
    if expected is not None and not has_separate_onnx(described):
        raise CorruptError(f"{described.directory / ONNX_FILE}: is missing; run `nitamono repair`")
    if has_separate_onnx(described) and (expected is None or described.card.get(ONNX_CHECKSUM) != expected):
        raise CorruptError(f"{_differs(described)}; or run `nitamono repair`")


def check_contents(described: EncoderDescription) -> None:
    """Compare the ONNX file with the card; raises `CorruptError`."""
    path = described.directory / ONNX_FILE
    if has_separate_onnx(described) and sha256_of(path) != described.card.get(ONNX_CHECKSUM):
        raise CorruptError(f"{_differs(described)}; or run `nitamono repair`")


def export(directory: Path) -> bool:
    """Export the weights of an encoder directory again; False without PyTorch, or if that is not possible."""
    try:
        with extras("exporting an encoder"):
            from training.onnx.export import add_onnx

        return add_onnx(directory) is not None
    except (MissingExtraError, EncoderError):
        return False


def _agrees(described: EncoderDescription, *, is_needed: bool) -> bool:
    path = described.directory / ONNX_FILE
    try:
        with extras(f"{path}: comparing it with the encoder's weights"):
            from training.encoder import load_encoder
            from training.onnx.export import check_agreement
    except MissingExtraError:
        if is_needed:
            raise
        return False
    encoder = load_encoder(described.directory)
    try:
        check_agreement(encoder, path.read_bytes(), tolerance=FARTHEST)
    except EncoderError as exc:
        raise MismatchError(
            f"{path}: does not compute the vectors of the weights beside it ({exc}); fetch the encoder again, or "
            "remove the file"
        ) from exc
    return True


def _differs(described: EncoderDescription) -> str:
    return (
        f"{described.directory / ONNX_FILE}: is not the ONNX file that encoder {described.encoder_id[:12]} was "
        "registered with, so its vectors may differ; fetch the encoder again, or remove the file"
    )
