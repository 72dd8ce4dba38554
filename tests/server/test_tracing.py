"""Spans of requests: which there are, where they are, what they say."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import chairlift
from chairlift.engine.messages import Finished, Timings
from chairlift.engine.ride import Ride
from chairlift.errors import ConfigurationError, NumericalError
from chairlift.server.app import create_app
from chairlift.server.request_id import HEADER
from chairlift.server.serve import open_tracing
from chairlift.server.tracing import Tracing, name_trace
from tests.builders import a_request
from tests.running import GENERATIONS, EngineThread, wait_until

SECRET = "unmistakable"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
STAGES = ["queue", "encode", "denoise", "decode"]
SECOND = 1_000_000_000
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Spans:
    """What was traced so far."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    @property
    def all(self) -> dict[str, ReadableSpan]:
        """By name."""
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def spans(engine: EngineThread) -> Iterator[Spans]:
    """Those of all requests to the engine, when those of the test before have ended."""
    wait_until(lambda: engine.client.pending_rows == 0)
    engine.wait_for(asyncio.sleep(0))
    spans = Spans()
    engine.client.on_end.append(spans.tracing)
    yield spans
    engine.client.on_end.remove(spans.tracing)


@pytest.fixture
def ask(engine: EngineThread, spans: Spans) -> Iterator[Any]:
    """Sends a request to an application that is traced."""
    with engine.jobs() as jobs:

        async def visit(method: str, url: str, **options: Any) -> httpx.Response:
            app = create_app(engine.client, jobs, tracing=spans.tracing)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://lift") as http:
                return await http.request(method, url, **options)

        yield lambda *given, **options: engine.wait_for(visit(*given, **options))


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def test_a_request_goes_on_with_the_callers_trace(ask: Any, spans: Spans) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", HEADER: "caller-7"}
    body = {"prompt": SECRET, "user": SECRET, "num_inference_steps": 7, "n": 2}
    assert ask("POST", GENERATIONS, json=body, headers=headers).status_code == 200
    wait_until(lambda: len(spans.all) == 6)
    found = spans.all
    http, generate = found[f"POST {GENERATIONS}"], found["generate"]
    assert parent(http) == int(CALLER, 16)
    assert parent(generate) == id_of(http)
    assert {parent(found[name]) for name in STAGES} == {id_of(generate)}
    traces = {span.context.trace_id for span in found.values() if span.context}
    assert traces == {int(TRACE, 16)}
    said = attributes(generate)
    expected = {"request_id": "caller-7", "outcome": "finished", "steps": 7, "n": 2, "rows_max": 2}
    assert {f"chairlift.{name}": value for name, value in expected.items()}.items() <= said.items()
    assert SECRET not in "".join(span.to_json() for span in found.values())


def test_log_lines_have_the_callers_trace(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    caplog.handler.addFilter(name_trace)
    try:
        with caplog.at_level(logging.INFO, "chairlift.requests"):
            ask("POST", GENERATIONS, json={"prompt": "a boat", "n": 99}, headers=headers)
    finally:
        caplog.handler.removeFilter(name_trace)
    [refused] = caplog.records
    assert refused.fields["trace_id"] == TRACE  # type: ignore[attr-defined]


def test_a_job_is_in_the_trace_of_the_request_that_brought_it(ask: Any, spans: Spans) -> None:
    job = ask("POST", "/v1/jobs", json={"prompt": "a boat"}).json()
    wait_until(lambda: {"generate", "POST /v1/jobs"} <= spans.all.keys())
    generate = spans.all["generate"]
    assert parent(generate) == id_of(spans.all["POST /v1/jobs"])
    assert attributes(generate)["chairlift.id"] == job["id"]


def test_what_only_reads_has_no_span(ask: Any, spans: Spans) -> None:
    for url in ("/health", "/metrics", "/v1/models", "/v1/jobs"):
        assert ask("GET", url).status_code == 200
    assert spans.all == {}


def test_a_refusal_has_the_span_of_its_http_request(ask: Any, spans: Spans) -> None:
    ask("POST", GENERATIONS, json={"prompt": SECRET, "n": 99})
    [span] = spans.all.values()
    assert attributes(span)["http.response.status_code"] == 400
    assert SECRET not in span.to_json()


def finished(timings: Timings) -> dict[str, ReadableSpan]:
    """The spans of a request that was submitted as long ago as its timings say."""

    async def end(spans: Spans) -> dict[str, ReadableSpan]:
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(), loop.create_future(), loop.time() - timings.total_s)
        ride.answer.set_result(Finished(request_id="a", images=[], timings=timings))
        spans.tracing(ride)
        return spans.all

    return asyncio.run(end(Spans()))


def ended(end: Callable[[asyncio.Future[Finished]], object]) -> ReadableSpan:
    """The only span of a request that has ended otherwise."""

    async def live(spans: Spans) -> ReadableSpan:
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(prompt=SECRET), loop.create_future(), loop.time())
        end(ride.answer)
        spans.tracing(ride)
        [span] = spans.all.values()
        return span

    return asyncio.run(live(Spans()))


def when(span: ReadableSpan, end: int) -> tuple[float, float]:
    """The seconds from a span's edges to ``end``."""
    assert span.start_time
    assert span.end_time
    return (span.start_time - end) / SECOND, (span.end_time - end) / SECOND


def test_the_stages_of_a_request_fill_its_span() -> None:
    spans = finished(Timings(queue_s=1, encode_s=2, denoise_s=4, decode_s=3, total_s=10, steps=20))
    end = spans["generate"].end_time
    assert end
    assert when(spans["generate"], end) == pytest.approx((-10, 0), abs=0.5)
    assert [when(spans[name], end) for name in STAGES] == [(-10, -9), (-9, -7), (-7, -3), (-3, 0)]


def test_the_stages_of_several_images_stay_within_its_span() -> None:
    spans = finished(  # The slowest in each stage is another image.
        Timings(queue_s=9, encode_s=2, denoise_s=8, decode_s=4, total_s=10, steps=20)
    )
    end = spans["generate"].end_time
    assert end
    assert [when(spans[name], end) for name in STAGES] == [(-10, -1), (-1, 0), (-10, -4), (-4, 0)]


def test_a_failed_request_is_an_error_without_stages() -> None:
    span = ended(lambda answer: answer.set_exception(NumericalError(SECRET)))
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "numerical_error"
    assert SECRET not in span.to_json()


def test_a_cancelled_request_is_no_error() -> None:
    span = ended(lambda answer: answer.cancel())
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)["chairlift.outcome"] == "cancelled"


# ---------------------------------------------------------------------- where they go to


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExportTraceServiceRequest]]:
    """What comes to an OTLP endpoint, which the environment names."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *anything: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield received
        server.shutdown()
        serving.join()


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    with open_tracing() as tracing:
        assert tracing is None


@pytest.mark.parametrize(("named", "name"), [(None, "chairlift"), ("north-slope", "north-slope")])
def test_spans_go_to_the_endpoint_of_the_environment(
    collector: list[ExportTraceServiceRequest],
    named: str | None,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if named:
        monkeypatch.setenv("OTEL_SERVICE_NAME", named)

    async def cancel(tracing: Tracing) -> None:
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(), loop.create_future(), loop.time())
        ride.answer.cancel()
        tracing(ride)

    handlers = logging.getLogger().handlers
    with open_tracing() as tracing:
        assert tracing is not None
        assert all(name_trace in handler.filters for handler in handlers)
        asyncio.run(cancel(tracing))
    assert not any(name_trace in handler.filters for handler in handlers)
    [[resource]] = [request.resource_spans for request in collector]
    service = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert service["service.name"] == name
    assert service["service.version"] == chairlift.__version__
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["generate"]


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    message = "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; traces are sent by 'http/protobuf' only"
    with pytest.raises(ConfigurationError, match=message), open_tracing():
        pass


def test_without_the_extra_the_server_runs_and_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "chairlift.server.tracing", None)
    with open_tracing() as tracing:
        assert tracing is None
    assert "there are no traces without chairlift[tracing]" in caplog.text
