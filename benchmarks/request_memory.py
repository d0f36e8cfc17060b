"""Memory of the worst requests that are legal: `python benchmarks/request_memory.py [--at-once 64] [--json FILE]`.

For each kind of request, starts `nitamono serve` with one worker and the encoder `default`, warms it up, and sends the
request alone and then many times at once. Reports the server's resident memory when idle, its peak during one request
and during all of them (VmHWM of /proc, which is reset before), and how the requests were answered. Linux only.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from load import COLLECTION, SEARCH, photos, server, write_collection
from PIL import Image

from training.console import to_json

Image.MAX_IMAGE_PIXELS = None
Request = dict[str, Any]
BODY = 32 * 2**20 - 4096


def encoded(mode: str, side: int, kind: str, **options: Any) -> bytes:
    stripes = np.zeros((side, side), np.uint16 if mode == "I;16" else np.uint8)
    stripes[::64] = 200
    out = io.BytesIO()
    image = Image.fromarray(stripes)
    (image if mode == "I;16" else image.convert(mode)).save(out, kind, **options)
    return out.getvalue()


def upload(data: bytes, **fields: str) -> Request:
    return {"method": "POST", "url": SEARCH, "files": {"image": data}, "data": fields}


def padded_json(data: bytes) -> Request:
    """A body at the limit; what follows the image is ignored by decoders."""
    text = base64.b64encode(data + bytes(BODY // 4 * 3 - 3000 - len(data))).decode()
    headers = {"content-type": "application/json"}
    return {
        "method": "POST", "url": SEARCH, "content": json.dumps({"image_base64": text}).encode(), "headers": headers,
    }  # fmt: skip


def item(images: Sequence[bytes]) -> Request:
    files = [("image", ("a", data)) for data in images]
    return {"method": "PUT", "url": f"/v1/collections/{COLLECTION}/items/new", "files": files}


KINDS: dict[str, Callable[[int], Request]] = {
    "PNG, 16-bit grey": lambda side: upload(encoded("I;16", side, "PNG")),
    "PNG, RGB": lambda side: upload(encoded("RGB", side, "PNG", compress_level=1)),
    "PNG, RGBA, tiny region, all items": lambda side: upload(
        encoded("RGBA", side * 5 // 8, "PNG", compress_level=1), region="0.5,0.5,0.001,0.001", find_items="true"
    ),
    "JPEG, progressive 4:4:4": lambda side: upload(
        encoded("RGB", side * 3 // 4, "JPEG", progressive=True, subsampling=0)
    ),
    "WebP": lambda side: upload(encoded("RGB", side // 2, "WEBP", lossless=True, quality=0, method=0)),
    "TIFF, one strip": lambda side: upload(
        encoded("RGB", side * 5 // 8, "TIFF", compression="tiff_lzw", tiffinfo={278: side})
    ),
    "JSON of 32 MiB with a PNG": lambda side: padded_json(encoded("RGB", side, "PNG")),
    "item of 16 PNGs": lambda side: item([encoded("RGB", side - n, "PNG") for n in range(16)]),
}


def status(pid: int, name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def measure(home: Path, request: Request, at_once: int) -> dict[str, Any]:
    with server(home, 1) as (url, pid), httpx.Client(base_url=url, timeout=300, limits=httpx.Limits()) as client:
        for photo in photos():
            client.post(SEARCH, files={"image": photo}, data={"find_items": "true"}).raise_for_status()
        found: dict[str, Any] = {"idle_mb": status(pid, "VmRSS")}
        reset_peak(pid)
        found["one"] = str(client.request(**request).status_code)
        found["one_mb"] = status(pid, "VmHWM")
        reset_peak(pid)
        with ThreadPoolExecutor(at_once) as pool:
            answers = [pool.submit(client.request, **request) for _ in range(at_once)]
            statuses = Counter(str(answer.result().status_code) for answer in answers)
        found["many"] = dict(sorted(statuses.items()))
        found["many_mb"] = status(pid, "VmHWM")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--side", type=int, default=8000, help="Pixels of a side of the largest image.")
    parser.add_argument("--only", help="A regular expression of the kinds.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        write_collection(home, 200, "default")
        for name, build in KINDS.items():
            if given.only is None or re.search(given.only, name):
                rows[name] = measure(home, build(given.side), given.at_once)
    print(f"| request | idle, MB | one: peak, MB (status) | {given.at_once} at once: peak, MB (statuses) |")
    print("|---|---|---|---|")
    for name, row in rows.items():
        many = ", ".join(f"{count} x {code}" for code, count in row["many"].items())
        print(f"| {name} | {row['idle_mb']:.0f} | {row['one_mb']:.0f} ({row['one']}) | {row['many_mb']:.0f} ({many}) |")
    if given.json:
        given.json.write_text(to_json(rows) + "\n")


if __name__ == "__main__":
    main()
