"""CPU time of the catalogue alone: storing rows, and a second run of `nitamono index` over unchanged files.

    python benchmarks/catalogue_rows.py FOLDER [--rows 100000] [--database-url postgresql+psycopg://USER@HOST/EMPTY]

The rows are hard links to the photos of FOLDER, 1,000 to a folder, with made-up vectors of the encoder's size in
batches of 1,000; FOLDER must be on the disk of the temporary files. Times are CPU seconds of this process, without a
database server's. The files' own decoding and encoding is measured by `index_throughput.py`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from indexer.catalogue.home import Home
from indexer.catalogue.records import ImageWrite
from indexer.ingest.ingest import index_source
from training.data.sources import SourceImage, read_source
from training.reference import describe_any

BATCH = 1000


def link_photos(folder: Path, target: Path, count: int) -> None:
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    for number, photo in zip(range(count), itertools.cycle(photos), strict=False):
        place = target / f"{number // BATCH:04d}" / f"{number:07d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(photo, place)


def writes_of(source: Path, dim: int) -> Iterator[list[ImageWrite]]:
    """What a first run would store, with random unit vectors."""
    rng = np.random.default_rng(0)
    listed = (entry for entry in read_source(source) if isinstance(entry, SourceImage))
    number = itertools.count()
    while batch := list(itertools.islice(listed, BATCH)):
        vectors = rng.standard_normal((len(batch), dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        stats = [os.stat(entry.file) for entry in batch]
        yield [
            ImageWrite(
                entry.item_id, entry.stored_as, "added", "ok", attributes=entry.attributes,
                sha256=f"{next(number):064x}", size=stat.st_size, mtime_ns=stat.st_mtime_ns, width=400, height=533,
                source=str(source), vector=vector,
            )
            for entry, stat, vector in zip(batch, stats, vectors, strict=True)
        ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--database-url")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, encoder = Path(scratch) / "source", describe_any(options.encoder)
        link_photos(options.folder, source, options.rows)
        with Home.open(Path(scratch) / "home", create=True, database_url=options.database_url) as home:
            home.add_encoder(encoder)
            collection_id = home.catalogue.ensure_collection("default")
            spent = 0.0
            for writes in writes_of(source, encoder.dim):
                began = time.process_time()
                home.catalogue.images.write(collection_id, encoder.encoder_id, writes, live=False)
                spent += time.process_time() - began
            print(f"stored {options.rows} rows in {spent:.2f} s, {options.rows / spent:.0f} rows/s")
            index_source(home, "default", source, encoder_ref=options.encoder)  # builds the generation, calibrates
            began = time.process_time()
            report = index_source(home, "default", source)
            spent = time.process_time() - began
            if report.unchanged != options.rows:
                raise SystemExit(f"the second run was not idle: {report}")
            each = 1e6 * spent / options.rows
            print(f"second run over {options.rows} unchanged files: {spent:.2f} s, {each:.0f} us a row")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
