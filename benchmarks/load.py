"""Searches under load: `python benchmarks/load.py [--items 100000] [--workers 2] [--connections 1,8,32,128,400]
[--seconds 20] [--encoder default] [--json FILE]`.

Starts `nitamono serve` for a collection of random vectors and sends it uploads over so many connections at once. Each
connection sends its next request as soon as it has a response; one that was refused with 503 waits for Retry-After
first, as a client should. Meanwhile, another process asks `/healthz`, `/readyz` and `/metrics` 20 times a second.
Prints a Markdown table with, for each number of connections: answers per second, percentiles of their latency, the
share of requests refused and the time that a refusal took, and the slowest answer of each probe. Client and server
share the machine's cores. The last line compares one connection with the bare work: decode, encode, and search FAISS.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image, ImageDraw

from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord, ImageWrite
from indexer.generations.build import build_generation
from indexer.vectors.engines import read_index
from training.console import to_json
from training.data.decode import decode_image
from training.embedder import load_embedder, prepare
from training.reference import describe_encoder

COLLECTION = "load"
SEARCH = f"/v1/collections/{COLLECTION}/search"
PROBES = ("/healthz", "/readyz", "/metrics")
PROBE_EVERY = 0.05
BATCH = 5000
PHOTOS = 16
K = 10


class Answer(NamedTuple):
    status: int
    seconds: float


def write_collection(path: Path, items: int, encoder: str) -> None:
    """A home with a collection of random vectors of an encoder, whose items share one photo."""
    described = describe_encoder(encoder)
    rng = np.random.default_rng(0)
    with Home.open(path, create=True) as home:
        photo = home.path / "photo.jpg"
        photo.write_bytes(photos()[0])
        home.add_encoder(described)
        collection = home.catalogue.ensure_collection(COLLECTION)
        for start in range(0, items, BATCH):
            vectors = rng.standard_normal((min(BATCH, items - start), described.dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            writes = [
                ImageWrite(
                    item_id=f"item/{number}", uri=str(photo), kind="added", status="ok",
                    title=f"Item {number}", attributes={"shelf": str(number % 50)}, sha256=f"{number:064x}",
                    vector=vector,
                )
                for number, vector in enumerate(vectors, start)
            ]  # fmt: skip
            home.catalogue.images.write(collection, described.encoder_id, writes, live=False, known_only=False)
        with home.lock(f"collection-{COLLECTION}"):
            build_generation(home, COLLECTION, EncoderRecord.of(described))


def photos(side: tuple[int, int] = (600, 800)) -> list[bytes]:
    """JPEGs of shapes on noise, as large as a shop's photos."""
    made = []
    for number in range(PHOTOS):
        rng = np.random.default_rng(number)
        noise = Image.fromarray(rng.integers(120, 256, (side[1] // 8, side[0] // 8, 3), dtype=np.uint8))
        image = noise.resize(side, Image.Resampling.BICUBIC)
        left, top = (int(value) for value in rng.integers(20, 200, 2))
        ImageDraw.Draw(image).ellipse((left, top, left + 300, top + 400), fill=tuple(rng.integers(0, 200, 3).tolist()))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=88)
        made.append(out.getvalue())
    return made


@contextmanager
def server(home: Path, workers: int, **environment: str) -> Iterator[tuple[str, int]]:
    """`nitamono serve`, ready; yields its URL and process id."""
    command = [sys.executable, "-m", "service.cli", "serve", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "NITAMONO_LOG_LEVEL": "error", **environment},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://[0-9.]+:\d+", line):
                break
        else:
            raise SystemExit("the server ended")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop it
        for _ in range(4 * workers):  # each worker loads the collection
            while httpx.get(f"{found[0]}/readyz", timeout=60).status_code != 200:
                time.sleep(0.1)
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait()


def request_of(photo: bytes) -> bytes:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + photo
        + b'\r\n--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n' + str(K).encode() + b"\r\n--x--\r\n"
    )  # fmt: skip
    head = f"POST {SEARCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def read_response(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    await reader.readexactly(int(headers.get("content-length", 0)))
    return int(status.split()[1]), headers


async def connection(host: str, port: int, requests: Sequence[bytes], first: int, until: float) -> list[Answer]:
    """Send requests one after the other; a connection that the server closes is opened again."""
    answers: list[Answer] = []
    streams = None
    number = first
    while time.perf_counter() < until:
        began = time.perf_counter()
        pause = 0.0
        try:
            if streams is None:
                streams = await asyncio.open_connection(host, port)
            streams[1].write(requests[number % len(requests)])
            status, headers = await read_response(streams[0])
            if headers.get("connection") == "close":
                streams[1].close()
                streams = None
            pause = float(headers.get("retry-after", 0))
        except (OSError, EOFError):
            streams, status, pause = None, 0, 0.1
        answers.append(Answer(status, time.perf_counter() - began))
        await asyncio.sleep(min(pause, max(0.0, until - time.perf_counter())))
        number += 1
    if streams is not None:
        streams[1].close()
    return answers


async def send_load(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> list[Answer]:
    host, _, port = url.removeprefix("http://").partition(":")
    until = time.perf_counter() + seconds
    sent = await asyncio.gather(*(connection(host, int(port), requests, n, until) for n in range(connections)))
    return [answer for answers in sent for answer in answers]


def probe(url: str, ended: Any, slowest: Any) -> None:
    """Ask the probes, in a process of its own; puts the seconds of each answer into a queue."""
    found: dict[str, list[float]] = {path: [] for path in PROBES}
    with httpx.Client(base_url=url, timeout=60) as client:
        while not ended.wait(PROBE_EVERY):
            for path, seconds in found.items():
                began = time.perf_counter()
                answer = client.get(path)
                seconds.append(time.perf_counter() - began if answer.status_code == 200 else 60.0)
    slowest.put(found)


def measure(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ended, queue = context.Event(), context.Queue()
    prober = context.Process(target=probe, args=(url, ended, queue))
    prober.start()
    time.sleep(1.5)  # it imports httpx
    began = time.perf_counter()
    answers = asyncio.run(send_load(url, requests, connections, seconds))
    took = time.perf_counter() - began
    ended.set()
    probes = queue.get()
    prober.join()
    return {"connections": connections, **summary(answers, took), "probes": {p: stats(s) for p, s in probes.items()}}


def summary(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    served = [answer.seconds for answer in answers if answer.status == 200]
    refused = [answer.seconds for answer in answers if answer.status == 503]
    return {
        "per_second": len(served) / seconds,
        "served": stats(served),
        "refused_share": len(refused) / max(1, len(answers)),
        "refused": stats(refused),
        "failed": len(answers) - len(served) - len(refused),
    }


def stats(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    percentiles = {f"p{q}_ms": float(np.percentile(seconds, q) * 1000) for q in (50, 95, 99)}
    return {**percentiles, "max_ms": max(seconds) * 1000}


def bare_seconds(home_path: Path, jpegs: Sequence[bytes], repeats: int) -> float:
    """Median time to decode, encode and search FAISS, in this process."""
    with Home.open(home_path) as home:
        state = home.catalogue.active_state(COLLECTION)
        directory = home.generation_directory(COLLECTION, state.generation)
        embedder = load_embedder(home.encoder(state.encoder_id), threads=1)
    manifest = json.loads((directory / "manifest.json").read_text())
    index = read_index(directory, manifest["factory"], manifest["search_parameters"])
    found = []
    for number in range(repeats):
        began = time.perf_counter()
        image = decode_image(jpegs[number % len(jpegs)], at_least=embedder.described.preprocessing.size)
        vectors, _ = embedder.embed_with_regions(prepare(embedder, image), framed=False)
        index.search(vectors, 2 * K, None)
        found.append(time.perf_counter() - began)
    return float(np.median(found[repeats // 5 :]))


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| connections | answers/s | p50, ms | p95, ms | p99, ms | refused | refusal p50 / p99, ms | "
        "healthz / readyz / metrics p99, ms | failed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        served, refused = row["served"], row["refused"]
        latency = " | ".join(f"{served.get(name, float('nan')):.0f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        refusal = f"{refused['p50_ms']:.0f} / {refused['p99_ms']:.0f}" if refused else "-"
        probes = " / ".join(f"{row['probes'][path].get('p99_ms', float('nan')):.0f}" for path in PROBES)
        lines.append(
            f"| {row['connections']} | {row['per_second']:.1f} | {latency} | {row['refused_share']:.0%} | {refusal} | "
            f"{probes} | {row['failed']} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", default="1,8,32,128,400")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--home", type=Path, help="Keep the collection here; one that exists is used again.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        home = given.home or Path(folder) / "home"
        if not home.exists():
            write_collection(home, given.items, given.encoder)
        jpegs = photos()
        requests = [request_of(jpeg) for jpeg in jpegs]
        bare = bare_seconds(home, jpegs, 100)
        with server(home, given.workers) as (url, _):
            measure(url, requests, 4, min(2.0, given.seconds))  # warm-up
            rows = [measure(url, requests, int(n), given.seconds) for n in given.connections.split(",")]
    print(table(rows))
    alone = next((row["served"]["p50_ms"] for row in rows if row["connections"] == 1), float("nan"))
    print(
        f"\none connection / decode, encode and FAISS: {alone:.1f} / {bare * 1000:.1f} ms = {alone / 1000 / bare:.2f}"
    )
    if given.json:
        given.json.write_text(to_json({"workers": given.workers, "bare_ms": bare * 1000, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
