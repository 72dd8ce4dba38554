"""The open loop, against a server in this process."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response

from chairlift.bench.alone import REPEATS, predict_alone, spread_alone, to_measure
from chairlift.bench.client import Client, generations_url
from chairlift.bench.kinds import Kind
from chairlift.bench.records import Record
from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs
from tests.bench.builders import a_run, planned, with_client
from tests.bench.serving import ImagesServer, error, picture, picture_with_timings
from tests.running import PATIENCE_SECONDS, wait_until
from tests.simulate.builders import TABLE


def send(server: ImagesServer, count: int = 1, **settings: Any) -> list[Record]:
    """Records of a run, by their numbers."""
    timeout = settings.pop("timeout", PATIENCE_SECONDS)
    client = Client(server.url, timeout=timeout)
    plan = {name: settings.pop(name) for name in ("rate",) if name in settings}
    run = a_run(client, planned(count, **plan), **settings)
    with_client(client, run.send_all())
    return sorted(run.records, key=lambda record: record.number)


def gate(size: int) -> ImagesServer:
    """A server that answers nobody before so many have asked."""
    arrived = itertools.count(1)
    opened = asyncio.Event()

    async def answer(body: dict[str, Any]) -> Response:
        if next(arrived) == size:
            opened.set()
        await opened.wait()
        return await picture(body)

    return ImagesServer(answer)


def test_a_slow_server_does_not_slow_down_the_arrivals() -> None:
    with gate(30).running() as server:
        records = send(server, 30, rate=200.0)
    assert server.most_in_flight == 30
    assert all(record.is_completed for record in records)
    assert all(record.sent_s < min(one.finish_s or 0.0 for one in records) for record in records)


def test_nothing_is_sent_before_its_arrival() -> None:
    with ImagesServer().running() as server:
        records = send(server, 20, rate=100.0)
    for record in records:
        # The clock of the event loop may be a little ahead of its timers.
        assert record.sent_s >= record.arrival_s - 0.001
        assert record.sent_s == pytest.approx(record.arrival_s + record.late_s + record.held_s)
        assert record.latency_s == pytest.approx(
            record.late_s + record.held_s + (record.response_s or 0.0)
        )


def test_the_bound_on_concurrency_is_kept_and_reached() -> None:
    with gate(3).running() as server:
        records = send(server, 12, max_concurrency=3)
    assert server.most_in_flight == 3
    assert [record.held_s > 0.001 for record in records[:3]] == [False] * 3
    first_end = min(record.finish_s or 0.0 for record in records)
    assert all(record.sent_s >= first_end for record in records[3:])
    assert all((record.latency_s or 0.0) > record.held_s > 0 for record in records[3:])
    prompts = [body["prompt"] for body in server.bodies]
    assert set(prompts[:3]) == {record.body["prompt"] for record in records[:3]}


def test_the_servers_timings_are_kept_apart() -> None:
    with ImagesServer(picture_with_timings).running() as server:
        [record] = send(server)
    assert (record.queue_s, record.service_s, record.total_s) == (0.25, 1.75, 2.0)
    assert (record.encode_s, record.denoise_s, record.decode_s) == (0.5, 1.0, 0.25)


def test_a_server_of_another_make_has_none() -> None:
    with ImagesServer().running() as server:
        [record] = send(server)
    assert record.is_completed
    assert {record.queue_s, record.service_s, record.total_s, record.outside_s} == {None}
    assert list(server.bodies[0]) == ["prompt"]
    assert "authorization" not in server.headers[0]


def test_the_key_is_sent() -> None:
    with ImagesServer().running() as server:
        client = Client(server.url + "/v1/", api_key="secret")
        with_client(client, a_run(client, planned(1)).send_all())
    assert server.headers[0]["authorization"] == "Bearer secret"


# ---------------------------------------------------------------------- errors


async def plain_error(body: dict[str, Any]) -> Response:
    return PlainTextResponse("out of order", status_code=502)


async def refusal(body: dict[str, Any]) -> Response:
    return error(429, "queue_full", "64 pictures are accepted")


async def numbered_error(body: dict[str, Any]) -> Response:
    return PlainTextResponse('{"error": {"message": "bad", "code": 400}}', status_code=400)


async def redirect(body: dict[str, Any]) -> Response:
    return Response(status_code=307, headers={"Location": "/elsewhere"})


async def no_json(body: dict[str, Any]) -> Response:
    return PlainTextResponse("data: {}")


async def one_picture(body: dict[str, Any]) -> Response:
    return await picture({})


@pytest.mark.parametrize(
    ("answer", "status", "kind", "message"),
    [
        (refusal, 429, "http 429 queue_full", "64 pictures are accepted"),
        (plain_error, 502, "http 502", "out of order"),
        (numbered_error, 400, "http 400", "bad"),
        (redirect, 307, "http 307", ""),
        (no_json, 200, "bad answer", "JSON is malformed"),
    ],
)
def test_errors_have_a_kind_and_say_why(answer: Any, status: int, kind: str, message: str) -> None:
    with ImagesServer(answer).running() as server:
        [record] = send(server)
    assert not record.is_completed
    assert (record.status, record.error) == (status, kind)
    assert message in (record.message or "")


def test_too_few_pictures_are_an_error() -> None:
    with ImagesServer(one_picture).running() as server:
        client = Client(server.url)
        run = a_run(client, planned(1, Kind(n=2)))
        with_client(client, run.send_all())
    assert run.records[0].message == "1 pictures came, and 2 were asked for"


def test_a_request_that_takes_too_long_is_given_up() -> None:
    with gate(2).running() as server:
        [record] = send(server, timeout=0.2)
    assert (record.error, record.status) == ("timeout", None)
    assert record.message == "no answer within 0.2 s"
    assert (record.response_s or 0.0) >= 0.2


def test_a_server_that_is_not_there_is_not_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    client = Client(f"http://{address}")
    run = a_run(client, planned(2))
    with_client(client, run.send_all())
    assert [record.error for record in run.records] == ["not connected", "not connected"]
    assert run.records[0].message == f"{address}: Connection refused"


def test_a_server_that_dies_halfway_loses_the_connection() -> None:
    def die(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        dying = threading.Thread(target=die, args=(listening,))
        dying.start()
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}")
        run = a_run(client, planned(1))
        with_client(client, run.send_all())
        dying.join()
    assert [record.error for record in run.records] == ["connection lost"]


# ---------------------------------------------------------------------- ending early


def test_what_is_under_way_when_a_run_is_ended_is_kept_as_unfinished() -> None:
    async def answer(body: dict[str, Any]) -> Response:
        if len(server.bodies) > 1:
            await asyncio.to_thread(over.wait)
        return await picture(body)

    async def interrupted() -> None:
        async with client:
            sending = asyncio.create_task(run.send_all())
            await asyncio.to_thread(wait_until, lambda: len(server.bodies) == 2)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending

    over = threading.Event()
    with ImagesServer(answer).running() as server:
        client = Client(server.url)
        run = a_run(client, planned(3), max_concurrency=1)
        asyncio.run(interrupted())
        over.set()
        assert [record.is_completed for record in run.records] == [True, False]
        assert run.records[1].finish_s is None
        assert run.records[1].error is None


# ---------------------------------------------------------------------- warm-ups, the time alone


def test_warm_ups_go_one_by_one_and_leave_no_record() -> None:
    with ImagesServer().running() as server:
        client = Client(server.url)
        run = a_run(client, planned(2))
        with_client(client, run.warm_up(5))
    assert server.most_in_flight == 1
    assert not run.records
    prompts = {body["prompt"] for body in server.bodies}
    assert len(prompts) == 5
    assert not prompts & {request.prompt for request in run.requests}


def test_a_warm_up_that_fails_ends_the_run() -> None:
    with ImagesServer(refusal).running() as server:
        client = Client(server.url)
        run = a_run(client, planned(2))
        with pytest.raises(ConfigurationError, match="a warm-up failed: http 429 queue_full: 64"):
            with_client(client, run.warm_up(1))


def test_the_time_alone_is_measured_at_the_ends_of_each_kind() -> None:
    kinds = Kind(steps=(5, 9)), Kind(width=64, height=64, steps=(3, 3))
    with ImagesServer().running() as server:
        client = Client(server.url)
        run = a_run(client, planned(60, *kinds))
        with_client(client, run.measure_alone())
        assert server.most_in_flight == 1
        steps = sorted(body["num_inference_steps"] for body in server.bodies)
        assert steps == sorted(REPEATS * [3, 5, 9])
        with_client(client, run.send_all())
    assert all((record.alone_s or 0.0) > 0 for record in run.records)


def test_between_the_ends_the_time_alone_is_linear_in_the_steps() -> None:
    requests = planned(60, Kind(steps=(5, 9)), Kind(width=64, height=64))
    ends = {one.number: float(one.steps or 100) for one in to_measure(requests)}
    assert len(ends) == 3
    alone = dict(spread_alone(requests, ends))
    assert alone == {one.number: pytest.approx(one.steps or 100) for one in requests}


def test_the_time_alone_comes_from_a_cost_table() -> None:
    requests = planned(4, Kind(width=64, height=64, steps=(10, 10), n=2))
    alone = predict_alone(Costs(TABLE), requests)
    # Two rows: encoding 0.5 s and decoding 1 s each, ten steps of 1.2 s together.
    assert alone == {number: pytest.approx(2 * 1.5 + 10 * 1.2) for number in range(4)}
    with pytest.raises(ConfigurationError, match="it needs a width, a height and steps"):
        predict_alone(Costs(TABLE), planned(1, Kind(steps=(5, 5))))


# ---------------------------------------------------------------------- the URL


@pytest.mark.parametrize("base", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_the_url_may_end_in_v1(base: str) -> None:
    assert generations_url(base) == "http://h:1/v1/images/generations"


@pytest.mark.parametrize("base", ["h:8000", "ftp://h", "http://", "http://h:99999", "http://h?a"])
def test_a_url_that_is_none_is_refused(base: str) -> None:
    with pytest.raises(ConfigurationError, match="it must be like http://host:8000"):
        generations_url(base)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="has a user or a password") as refusal:
        generations_url("http://me:secret@h")
    assert "secret" not in str(refusal.value)
