"""Traces over OTLP, received by a real HTTP server: spans of requests and of their stages."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.tracing import Tracing, no_span
from tests.indexer.search.pages import jpeg
from tests.service.test_durability import start

Received = list[tuple[str, Span]]  # name of the service, and span


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                for scope in resource.scope_spans:
                    received.extend((attributes["service.name"], span) for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_a_search_is_traced_with_its_stages_and_probes_are_not(collector: Received, home_copy: Path) -> None:
    server, url = start(home_copy)
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            answer = client.post(
                "/v1/collections/shop/search", files={"image": jpeg(1)}, headers={"traceparent": parent}
            )
            assert answer.status_code == 200
            assert client.get("/healthz").status_code == 200
    finally:
        server.terminate()
        server.wait()
    spans = {span.name: span for name, span in collector if name == "nitamono"}
    request = spans.pop("POST /v1/collections/{collection}/search")
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert {"search", "encode"} <= set(spans)
    assert spans["search"].parent_span_id == request.span_id
    assert {span.trace_id for span in spans.values()} == {request.trace_id}


def test_nothing_is_traced_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    tracing = Tracing()
    assert tracing.span is no_span and tracing.config["tracing"] is False
    with tracing.span("search"):
        pass
    tracing.close()
