"""Speed of `nitamono index`, compared with pure decoding and with a simple reader, on the same files in one run.

    python benchmarks/index_throughput.py FOLDER [--encoder REF] [--repeats 3] [--copies 1]

Lower bound (a): scaled JPEG decoding of the same files with as many processes (simplejpeg at the size that indexing
uses, and the resize to the encoder's square), with running processes, and with processes that have to be started first,
as for any command. Competitor (b): a reader that fully decodes each file with Pillow, resizes it and feeds the same
encoder in the same batches, in one process, and in as many processes as indexing uses. Indexing is timed in two ways:
as the command reports it (from reading the source to the activated generation, including the import of torch), and as
the duration of the whole command. All figures are medians of the repeats, which alternate because machines are noisy.
`--copies` repeats the files under other names, which reduces the share of the start-up time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from training.data.decode import decode_image
from training.preprocessing import Preprocessing
from training.reference import describe_encoder

BATCH = 128


def decode_only(path: Path, preprocessing: Preprocessing) -> int:
    """The work that no indexer can avoid: read, decode at a reduced size, resize."""
    pixels = decode_image(path.read_bytes(), at_least=preprocessing.size).pixels
    return preprocessing.apply(pixels).size


def decode_in_full(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """The usual reader: Pillow decodes every pixel, then shrinks."""
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((preprocessing.size, preprocessing.size), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def time_decode(pool: ProcessPoolExecutor, files: list[Path], preprocessing: Preprocessing) -> float:
    began = time.perf_counter()
    for _ in pool.map(partial(decode_only, preprocessing=preprocessing), files, chunksize=32):
        pass
    return time.perf_counter() - began


def time_decode_from_start(files: list[Path], preprocessing: Preprocessing, processes: int) -> float:
    began = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        time_decode(pool, files, preprocessing)
    return time.perf_counter() - began


def copy_files(folder: Path, target: Path, copies: int) -> Path:
    """The files of a folder several times over, in folders of their own."""
    for copy in range(copies):
        shutil.copytree(folder, target / str(copy), copy_function=shutil.copyfile)
    return target


def time_rival(reader: object, files: list[Path], preprocessing: Preprocessing, encoder: object) -> float:
    import torch

    began = time.perf_counter()
    batch = []
    for pixels in reader(partial(decode_in_full, preprocessing=preprocessing), files):  # type: ignore[operator]
        batch.append(pixels)
        if len(batch) == BATCH:
            encoder.encode(torch.from_numpy(np.stack(batch)))  # type: ignore[attr-defined]
            batch = []
    if batch:
        encoder.encode(torch.from_numpy(np.stack(batch)))  # type: ignore[attr-defined]
    return time.perf_counter() - began


def index_once(source: Path, home: Path, encoder: str) -> tuple[float, dict[str, object]]:
    command = [str(Path(sys.executable).with_name("nitamono")), "index", str(source), "--home", str(home), "--json"]
    began = time.perf_counter()
    done = subprocess.run([*command, "--encoder", encoder], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int, default=1)
    options = parser.parse_args()
    from training.encoder import load_encoder

    processes = os.cpu_count() or 1
    described = describe_encoder(options.encoder)
    encoder, preprocessing = load_encoder(options.encoder), described.preprocessing
    times: dict[str, list[float]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool, tempfile.TemporaryDirectory() as scratch:
        folder = options.folder
        if options.copies > 1:
            folder = copy_files(folder, Path(scratch) / "source", options.copies)
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        list(pool.map(partial(decode_only, preprocessing=preprocessing), files[: 4 * processes]))  # start, warm caches
        for repeat in range(options.repeats):
            home = Path(scratch) / str(repeat)
            measured = {"decode": time_decode(pool, files, preprocessing)}
            measured["decode from a cold start"] = time_decode_from_start(files, preprocessing, processes)
            measured["index, whole command"], report = index_once(folder, home, options.encoder)
            measured["index, as reported"] = report["seconds"]["total"]  # type: ignore[index]
            measured["again, whole command"], report = index_once(folder, home, options.encoder)
            measured["again, as reported"] = report["seconds"]["total"]  # type: ignore[index]
            if (report["added"], report["updated"]) != (0, 0):
                raise SystemExit(f"the second run was not idle: {report}")
            measured["Pillow in full, 1 process"] = time_rival(map, files, preprocessing, encoder)
            reader = partial(pool.map, chunksize=32)
            measured[f"Pillow in full, {processes} processes"] = time_rival(reader, files, preprocessing, encoder)
            for name, seconds in measured.items():
                times.setdefault(name, []).append(seconds)
    print(f"{len(files)} files, {processes} processes, encoder {described.encoder_id[:12]}, {options.repeats} repeats")
    medians = {name: median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name:32s} {seconds:7.2f} s {len(files) / seconds:8.0f} images/s")
    for kind in ("as reported", "whole command"):
        own = medians[f"index, {kind}"]
        print(f"index {kind}: {medians['decode'] / own:.2f} of the speed of pure decoding", end="")
        print(f" ({medians['decode from a cold start'] / own:.2f} with a cold start)", end="")
        print(f", {medians['Pillow in full, 1 process'] / own:.2f} x Pillow in 1 process", end="")
        print(f", {medians[f'Pillow in full, {processes} processes'] / own:.2f} x Pillow in {processes}", end="")
        print(f"; a second run takes {100 * medians[f'again, {kind}'] / own:.1f} %")


if __name__ == "__main__":
    main()
