"""OpenTelemetry traces: a span for each request, and for its stages. Off unless an OTLP endpoint is set.

The standard variables configure them: OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and others. Needs the extra `telemetry`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi.telemetry import TelemetryConfig

from training.extras import extras

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
UNTRACED = ("/healthz", "/readyz", "/metrics", "/static/")

Span = Callable[[str], AbstractContextManager[Any]]


def no_span(name: str) -> AbstractContextManager[Any]:
    """The span of a stage where nothing is traced."""
    return nullcontext()


class Tracing:
    """Traces of an app.

    Args:
        span: begins the span of a stage inside that of its request.
        config: for `FastAPI(telemetry=...)`. Prometheus has the metrics, and the server's log the errors.
    """

    span: Span
    config: TelemetryConfig

    def __init__(self) -> None:
        self.span, self._provider = no_span, None
        self.config = {"tracing": False, "metrics": False, "logs": False}
        endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
        if endpoint is not None:
            with extras(f"tracing ({endpoint} is set)"):
                self._provider = _provider()
            self.span = self._provider.get_tracer("nitamono").start_as_current_span
            self.config |= {
                "tracing": True, "operation_spans": False, "tracer_provider": self._provider, "exclude": _is_untraced
            }  # fmt: skip

    def close(self) -> None:
        """Export the spans that are still waiting."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "nitamono")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _is_untraced(scope: MutableMapping[str, Any]) -> bool:
    return str(scope.get("path", "")).startswith(UNTRACED)
