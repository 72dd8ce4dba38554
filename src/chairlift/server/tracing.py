"""OpenTelemetry traces: of every request one span, with the spans queue, encode, denoise and decode
in it. Needs ``chairlift[tracing]``.

Where they go to is said by OpenTelemetry's own environment variables:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. The span around ours is FastAPI's, that
of the HTTP request; it goes on with the trace that the caller's ``traceparent`` names.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    StatusCode,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)

import chairlift
from chairlift.engine.messages import Timings
from chairlift.engine.ride import Ride
from chairlift.errors import ConfigurationError
from chairlift.server.logs import describe

HTTP = "http/protobuf"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Tracing:
    """Makes the spans.

    Args:
        provider: What becomes of them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("chairlift", chairlift.__version__)

    @property
    def http(self) -> TelemetryConfig:
        """For FastAPI: a span of every HTTP request that asks for something to be done. What
        operators and pages read again and again has none.
        """
        return {
            "tracer_provider": self._provider,
            "tracing": True,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _only_reads,
        }

    def __call__(self, ride: Ride) -> None:
        """Make the spans of a ride that has ended; in the context in which it was submitted, so
        that they are in the span of its HTTP request, if it came with one.
        """
        fields = describe(ride)
        end = time.time_ns()
        start = end - _nanoseconds(asyncio.get_running_loop().time() - ride.submitted)
        span = self._tracer.start_span("generate", start_time=start)
        span.set_attributes(
            {f"chairlift.{name}": value for name, value in fields.items() if value is not None}
        )
        if ride.outcome == "failed":
            span.set_attribute("error.type", fields["code"])
            span.set_status(StatusCode.ERROR)
        if ride.outcome == "finished":
            self._add_stages(span, ride.answer.result().timings, end)
        span.end(end)

    def _add_stages(self, span: Span, timings: Timings, end: int) -> None:
        """The spans of a request's stages: the first two from its start on, the others up to its
        end. Of several images each stage is the slowest one's, so that two stages may overlap.
        """
        start = end - _nanoseconds(timings.total_s)
        encode = start + _nanoseconds(timings.queue_s)
        decode = end - _nanoseconds(timings.decode_s)
        stages = {
            "queue": (start, encode),
            "encode": (encode, min(end, encode + _nanoseconds(timings.encode_s))),
            "denoise": (max(start, decode - _nanoseconds(timings.denoise_s)), decode),
            "decode": (decode, end),
        }
        context = set_span_in_context(span)
        for name, (begun, ended) in stages.items():
            self._tracer.start_span(name, context, start_time=begun).end(ended)


@contextmanager
def exported_traces() -> Iterator[Tracing]:
    """Tracing to the OTLP endpoint that the environment names; at the end what is left is sent.
    Meanwhile log lines have the id of the trace that they belong to.

    Raises:
        ConfigurationError: The environment asks for another protocol than OTLP over HTTP.
    """
    for name in PROTOCOLS:
        protocol = os.environ.get(name) or HTTP
        if protocol != HTTP:
            raise ConfigurationError(f"{name} is {protocol!r}; traces are sent by {HTTP!r} only")
    ours = {"service.name": "chairlift", "service.version": chairlift.__version__}
    # What the environment says of the service goes before.
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(name_trace)
    try:
        yield Tracing(provider)
    finally:
        for handler in handlers:
            handler.removeFilter(name_trace)
        provider.shutdown()


def name_trace(record: logging.LogRecord) -> bool:
    """A filter for log records: what is logged on the way of a request has its trace's id."""
    context = get_current_span().get_span_context()
    if context.is_valid:
        record.fields = getattr(record, "fields", {}) | {
            "trace_id": format_trace_id(context.trace_id)
        }
    return True


def _only_reads(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("method") != "POST"


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
