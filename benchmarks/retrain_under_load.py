"""Search latency while a collection is retrained, activated, rolled back and activated again:
`python benchmarks/retrain_under_load.py [--source SOURCE] [--recipe NAME] [--set key=value]... [--rate 10]`.

A client sends queries at a constant rate. The collection starts with the encoder `pixels`, so that the candidate passes
the gate. Each response is compared with the results of both encoders for its query; a response that matches neither is
counted as mixed. Latencies are measured from the time when a query was due, so a stall delays every query behind it.
Prints a Markdown table; `--json FILE` writes all figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from load import server

from indexer.catalogue.home import Home
from indexer.search.searcher import Searcher
from training.console import to_json
from training.data.sources import read_images
from training.data.studio.catalogue import write_catalogue

COMMAND = [sys.executable, "-m", "service.cli"]
QUERIES, K = 24, 10
SETTLE = 5.0  # seconds of queries after each activation
START = "pixels"


@dataclass
class Client:
    """Sends queries at a constant rate until it is stopped, without waiting for the responses."""

    url: str
    queries: Sequence[bytes]
    rate: float
    phase: str = "quiet"
    answers: list[dict[str, Any]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        began = time.perf_counter()
        with httpx.Client(timeout=60) as http, ThreadPoolExecutor(16) as pool:
            number = 0
            while not self.stopped.is_set():
                due = began + number / self.rate
                time.sleep(max(0.0, due - time.perf_counter()))
                pool.submit(self._ask, http, number, due, self.phase)
                number += 1

    def _ask(self, http: httpx.Client, number: int, due: float, phase: str) -> None:
        query = number % len(self.queries)
        answer: dict[str, Any] = {"query": query, "phase": phase, "status": None}
        try:
            files = {"image": ("query.jpg", self.queries[query])}
            found = http.post(f"{self.url}/v1/collections/default/search", files=files, data={"k": str(K)})
            answer |= {"status": found.status_code, "body": found.json()}
        except httpx.HTTPError as exc:
            answer["error"] = repr(exc)
        answer["seconds"] = time.perf_counter() - due
        self.answers.append(answer)


def nitamono(*arguments: str) -> str:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"nitamono {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def expected(home: Path, queries: Sequence[bytes]) -> tuple[str, list[dict[str, float]]]:
    """The active encoder, and its results for each query."""
    with Home.open(home) as opened:
        pages = [Searcher(opened).search_image("default", query, k=K) for query in queries]
    return pages[0].encoder_id, [{hit.item_id: hit.score for hit in page.results} for page in pages]


def is_whole(answer: dict[str, Any], known: dict[str, list[dict[str, float]]]) -> bool:
    """Whether a response matches the results of the encoder that it names."""
    body = answer["body"]
    want = known.get(body["encoder_id"])
    if want is None:
        return False
    got = {hit["item_id"]: hit["score"] for hit in body["results"]}
    scores = want[answer["query"]]
    return got.keys() == scores.keys() and all(abs(got[item] - scores[item]) < 1e-4 for item in got)


def measure(
    source: Path, home: Path, recipe: str, overrides: Sequence[str], rate: float, quiet: float
) -> dict[str, Any]:
    nitamono("index", str(source), "--home", str(home), "--encoder", START)
    photos, _ = read_images(source)
    queries = [photo.path.read_bytes() for photo in photos[:: max(1, len(photos) // QUERIES)][:QUERIES]]
    known = dict([expected(home, queries)])
    with server(home, 1) as (url, _):
        client = Client(url, queries, rate)
        thread = threading.Thread(target=client.run)
        thread.start()
        try:
            time.sleep(quiet)
            client.phase = "retraining"
            sets = [part for override in overrides for part in ("--set", override)]
            record = json.loads(nitamono("retrain", "--home", str(home), "--recipes", recipe, *sets, "--json"))
            client.phase = "switched"
            time.sleep(SETTLE)
            known |= dict([expected(home, queries)])
            for phase, command in (
                ("rolled back", ["rollback"]),
                ("switched again", ["activate", str(record["generation"])]),
            ):
                client.phase = phase
                if record["status"] == "promoted":
                    nitamono("generations", *command, "--home", str(home))
                time.sleep(SETTLE)
        finally:
            client.stopped.set()
            thread.join()
    return {"retrain": record["status"], "rate": rate, **summarise(client.answers, known)}


def summarise(answers: list[dict[str, Any]], known: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    failed = [a for a in answers if a["status"] != 200]
    phases: dict[str, Any] = {}
    for phase in dict.fromkeys(a["phase"] for a in answers):
        of_phase = [a for a in answers if a["phase"] == phase]
        seconds = np.array([a["seconds"] for a in of_phase])
        phases[phase] = {
            "requests": len(of_phase),
            "encoders": sorted({a["body"]["encoder_id"][:12] for a in of_phase if a["status"] == 200}),
            **{f"p{q}_ms": float(np.percentile(seconds, q) * 1000) for q in (50, 99)},
            "max_ms": float(seconds.max() * 1000),
        }
    loaded = np.array([a["seconds"] for a in answers if a["phase"] != "quiet"])
    return {
        "requests": len(answers),
        "failed": len(failed),
        "failures": [a.get("error") or a.get("body") for a in failed[:3]],
        "mixed": sum(not is_whole(a, known) for a in answers if a["status"] == 200),
        "p99_ratio": float(np.percentile(loaded, 99) * 1000 / phases["quiet"]["p99_ms"]),
        "phases": phases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--recipe", default="robust-vae-small")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--quiet", type=float, default=30.0, help="Seconds of queries before the retraining.")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = asked.source or write_catalogue(Path(folder) / "shop", items=200, photos_per_item=2, seed=5, size=128)
        found = measure(source, Path(folder) / "home", asked.recipe, asked.set, asked.rate, asked.quiet)
    print(
        f"retraining: {found['retrain']}; {found['requests']} requests at {found['rate']:g} a second, "
        f"{found['failed']} failed, {found['mixed']} mixed; p99 after the quiet phase is {found['p99_ratio']:.2f} of "
        "that in the quiet phase\n\n"
        "| phase | requests | encoders | p50, ms | p99, ms | max, ms |\n|---|---|---|---|---|---|"
    )
    for phase, row in found["phases"].items():
        cells = (
            row["requests"],
            ", ".join(row["encoders"]),
            *(f"{row[c]:.1f}" for c in ("p50_ms", "p99_ms", "max_ms")),
        )
        print(f"| {phase} | " + " | ".join(map(str, cells)) + " |")
    if asked.json:
        asked.json.write_text(to_json(found) + "\n")


if __name__ == "__main__":
    main()
