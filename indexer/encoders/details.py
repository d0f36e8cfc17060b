"""Lists, details and comparisons of the shipped encoders and those of a home.

Only `throughput` loads weights; nothing else imports torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from indexer.catalogue.records import EncoderRecord
from training.errors import EncoderError
from training.reference import (
    ENCODER_FILES,
    IMPORTED,
    EncoderDescription,
    describe_any,
    describe_encoder,
    first_line,
    pretrained_names,
    standing_names,
    weights_file,
)

IMAGES = 256  # per timed run
RUN_SECONDS = 1.0  # minimum total duration of the timed runs
ID_PREFIX = re.compile(r"[0-9a-f]{6,64}")
MAX_HEADER = 100_000_000  # bytes; safetensors' own limit


@dataclass(frozen=True)
class ListedEncoder:
    """An encoder of `nitamono encoders list`.

    Args:
        name: display name.
        ref: what commands accept as REF.
        role: alias, such as `accurate`.
    """

    name: str
    ref: str
    encoder_id: str
    family: str
    dim: int
    metric: str
    default: bool
    role: str | None
    shipped: bool
    trained_from: str


def list_encoders(home: Path) -> list[ListedEncoder]:
    """The shipped encoders, then the others of a home if it exists."""
    roles = {
        name: role for role, name in reversed(standing_names().items())
    }  # if an encoder has two roles, the first is shown
    listed = []
    for name in pretrained_names():
        d = describe_encoder(name)
        listed.append(_listed(EncoderRecord.of(d), name, name, role=roles.get(name), shipped=True))
    if not home.is_dir():
        return listed
    from indexer.catalogue.home import Home

    shipped = {entry.encoder_id for entry in listed}
    with Home.open(home) as opened:
        for r in opened.catalogue.encoders.all():
            if r.encoder_id not in shipped:
                name, ref = str(r.card.get("name") or r.family), str(opened.encoder_directory(r.encoder_id))
                listed.append(_listed(r, name, ref, role=None, shipped=False))
    return listed


def _listed(r: EncoderRecord, name: str, ref: str, *, role: str | None, shipped: bool) -> ListedEncoder:
    known = (r.encoder_id, r.family, r.dim, r.metric)
    is_default = role == "default"
    return ListedEncoder(name, ref, *known, default=is_default, role=role, shipped=shipped, trained_from=r.trained_from)


def find_encoder(ref: str, home: Path) -> EncoderDescription:
    """The encoder of a directory, a shipped name, or the first six or more characters of an id.

    Names and ids resolve to the home's copy if it has one, since its card may have been amended.

    Raises:
        EncoderError: nothing matches, or several ids begin with `ref`.
    """
    if Path(ref).exists():
        return describe_any(ref)
    if not ID_PREFIX.fullmatch(ref):
        return _stored_copy(describe_any(ref), home)
    known = {d.encoder_id: d.directory for d in map(describe_encoder, pretrained_names())}
    known |= {path.name: path for path in home.glob("encoders/*")}
    matching = [directory for encoder_id, directory in known.items() if encoder_id.startswith(ref)]
    if len(matching) > 1:
        raise EncoderError(f"encoder {ref!r}: {len(matching)} ids begin with it; give more characters")
    return describe_any(matching[0] if matching else ref)


def _stored_copy(described: EncoderDescription, home: Path) -> EncoderDescription:
    directory = home / "encoders" / described.encoder_id
    return describe_any(directory) if directory.is_dir() else described


def sizes(described: EncoderDescription) -> dict[str, int]:
    """The size in bytes of each file, and `parameters`: numbers in the weights file or graph, including buffers."""
    files = {name: described.directory / name for name in ENCODER_FILES}
    found = {f"bytes of {name}": path.stat().st_size for name, path in files.items() if path.is_file()}
    count = count_constants if described.family == IMPORTED else count_numbers
    return {"parameters": count(described.directory / weights_file(described.family)), **found}


def count_numbers(path: Path) -> int:
    """Count the numbers in a safetensors file from its header."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER:
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(file.read(length))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        return sum(math.prod(shape) for shape in shapes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise EncoderError(f"{path}: not a safetensors file ({first_line(exc)})") from exc


def count_constants(path: Path) -> int:
    """Count the numbers in the constants of an ONNX graph."""
    from training.onnx.checks import read_graph, tensors_of

    try:
        return sum(math.prod(tensor.dims) for tensor in tensors_of(read_graph(path)))
    except EncoderError as exc:
        raise EncoderError(f"{path}: {exc}") from exc


def details(described: EncoderDescription) -> dict[str, Any]:
    """The document of `nitamono encoders show`."""
    return {
        "encoder_id": described.encoder_id,
        "directory": str(described.directory),
        "family": described.family,
        "dim": described.dim,
        "metric": described.metric,
        "trained_from": described.trained_from,
        "config": described.config,
        "preprocessing": asdict(described.preprocessing),
        "sizes": sizes(described),
        "card": described.card,
    }


def throughput(described: EncoderDescription, device: str) -> float:
    """Images or drawings per second on this machine, once prepared, to vectors; the median of the runs."""
    import numpy as np

    from training.embedder import load_embedder

    embedder = load_embedder(described, device=device)
    pixels = described.preprocessing.random(IMAGES, np.random.default_rng(0))
    embedder.embed(pixels)  # warm-up
    seconds: list[float] = []
    while sum(seconds) < RUN_SECONDS or len(seconds) < 3:
        began = perf_counter()
        embedder.embed(pixels)
        seconds.append(perf_counter() - began)
    return IMAGES / float(np.median(seconds))


def flat(values: Mapping[str, Any], prefix: str = "", depth: int = 2) -> Iterator[tuple[str, Any]]:
    """Flatten settings or figures to (`train.elbo`, value) pairs down to a depth; lists of more than 8 are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            if depth > 1:
                yield from flat(value, f"{prefix}{name}.", depth - 1)
        elif not isinstance(value, list | tuple) or len(value) <= 8:
            yield f"{prefix}{name}", value


def comparison(described: Mapping[str, EncoderDescription], speeds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Rows of a table that compares encoders: name -> value by encoder, None if an encoder lacks it."""
    columns = {ref: dict(_column(d, speeds[ref])) for ref, d in described.items()}
    rows: dict[str, dict[str, Any]] = {}
    for column in columns.values():
        for name in column:
            rows.setdefault(name, {ref: columns[ref].get(name) for ref in columns})
    order = ("", "config.", "preprocessing.", "data.", "figures.")  # keeps rows of one kind together
    return dict(sorted(rows.items(), key=lambda row: max(n for n, kind in enumerate(order) if row[0].startswith(kind))))


def _column(d: EncoderDescription, speed: float) -> Iterator[tuple[str, Any]]:
    yield from (("family", d.family), ("encoder_id", d.encoder_id[:12]), ("dim", d.dim), ("metric", d.metric))
    yield "trained_from", d.trained_from
    found = sizes(d)
    yield "parameters", found["parameters"]
    yield "megabytes", round(sum(size for name, size in found.items() if name != "parameters") / 1e6, 3)
    yield "images_per_second", round(speed, 1)
    yield from flat({"config": d.config, "preprocessing": asdict(d.preprocessing)})
    for name, value in flat({"data": d.card.get("data", {})}):
        if isinstance(value, str | int | float):
            yield name, value[:12] if isinstance(value, str) and name == "data.fingerprint" else value
    for name, value in flat({"figures": d.card.get("figures", {})}, depth=3):
        if isinstance(value, int | float):
            yield name, value
