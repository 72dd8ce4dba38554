"""Which worker gets which request, without any worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from chairlift.engine.berth import Berth
from chairlift.engine.dispatcher import Dispatcher
from chairlift.engine.messages import (
    Activity,
    Cancel,
    FromEngine,
    Loading,
    Rider,
    SetPolicy,
    Submit,
    Tick,
    ToEngine,
    decode_to_engine,
    encode,
)
from chairlift.engine.ride import Ride
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import EngineCrash
from chairlift.request import LoraUse, RowId
from tests.builders import a_request


class StubSupervisor:
    """A worker that is said to be there, and what it was sent."""

    def __init__(self) -> None:
        self.is_ready = True
        self.failure: str | None = None
        self.sent: list[ToEngine] = []

    def send(self, frame: bytes) -> None:
        if self.is_ready:
            self.sent.append(decode_to_engine(frame))

    def expect(self) -> None:
        pass


class Front:
    """A dispatcher with its berths, and the rides that it knows."""

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: int) -> None:
        self.config = WorkerConfig(model="fake")
        self.rides: dict[str, Ride] = {}
        self.dispatcher = Dispatcher(self.rides)
        self._loop = loop
        for number in range(workers):
            berth = Berth(number, self, hang_seconds=1.0)
            berth.supervisor = StubSupervisor()
            self.dispatcher.berths.append(berth)

    def loading(self, berth: Berth, message: Loading) -> None: ...
    def receive(self, berth: Berth, message: FromEngine) -> None: ...

    def up(self, berth: Berth) -> None:
        self.dispatcher.dispatch()

    def down(self, berth: Berth) -> None:
        self.dispatcher.lose(berth)

    def submit(self, id: str, **settings: Any) -> Ride:
        request = replace(a_request(id, width=64, height=64), **settings)
        ride = self.rides[id] = Ride(request, self._loop.create_future(), 0.0)
        self.dispatcher.send(ride, encode(Submit(request=request)))
        return ride

    def end(self, id: str, cancel: bool = False) -> None:
        ride = self.rides.pop(id)
        ride.answer.cancel()
        self.dispatcher.forget(ride, cancel)

    def die(self, number: int) -> None:
        berth = self.dispatcher.berths[number]
        berth.supervisor.is_ready = False
        berth.down()

    def start(self, number: int) -> None:
        berth = self.dispatcher.berths[number]
        berth.supervisor.is_ready, berth.supervisor.failure = True, None
        berth.supervisor.sent = []
        berth.up()

    def report(self, number: int, backlog_seconds: float) -> None:
        berth = self.dispatcher.berths[number]
        for ride in berth.rides.values():
            ride.accept(1.0, 0.0)
        berth.receive(Activity(ticks=[], running=0, waiting=0, backlog_seconds=backlog_seconds))

    @property
    def places(self) -> list[list[str]]:
        """Who is where."""
        return [list(berth.rides) for berth in self.dispatcher.berths]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


# ---------------------------------------------------------------------- the least backlog


def test_equal_requests_go_to_all_in_turn(loop: asyncio.AbstractEventLoop) -> None:
    front = Front(loop, 3)
    for number in range(6):
        front.submit(str(number))
    assert front.places == [["0", "3"], ["1", "4"], ["2", "5"]]


def test_small_ones_go_where_no_large_one_is(loop: asyncio.AbstractEventLoop) -> None:
    front = Front(loop, 2)
    front.submit("large", steps=100)
    for number in range(5):
        front.submit(str(number), steps=10)
    assert front.places == [["large"], ["0", "1", "2", "3", "4"]]


def test_what_a_worker_reports_counts_and_so_does_what_came_since(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    front.dispatcher.learn([a_tick(seconds=1.0)])  # A step of a picture takes a second.
    front.report(0, backlog_seconds=25.0)
    front.report(1, backlog_seconds=1.0)
    front.submit("0", steps=50)
    assert front.places == [[], ["0"]]
    front.submit("1", steps=50)
    assert front.places == [["1"], ["0"]]
    front.report(1, backlog_seconds=200.0)  # It is in it.
    front.submit("2", steps=50)
    assert front.places == [["1", "2"], ["0"]]


def a_tick(seconds: float, frames: int = 1, entries: int = 2) -> Tick:
    """Of one row, with guidance."""
    rider = Rider(RowId("x", 0), 0, 1)
    return Tick(
        seconds=seconds, width=64, height=64, frames=frames, entries=entries, riders=[rider]
    )


def test_what_a_step_takes_is_learned_by_what_is_in_its_forward(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    front.dispatcher.learn([a_tick(0.0, entries=0), a_tick(8.0, frames=8), a_tick(0.5, entries=1)])
    front.report(0, backlog_seconds=5.0)
    front.report(1, backlog_seconds=1.0)
    front.submit("0", steps=9)  # with guidance
    assert front.places == [[], ["0"]]
    front.submit("1", steps=9)
    assert front.places == [["1"], ["0"]]


def test_when_a_request_is_done_is_not_known_until_another_worker_has_it(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 1)
    ride = front.submit("a")
    front.report(0, backlog_seconds=1.0)
    assert ride.eta_s(0.5) == 0.5
    front.die(0)
    assert ride.eta_s(0.5) is None


def test_what_was_accepted_is_sent_as_a_promise_when_it_is_sent_again(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 1)
    front.submit("accepted")
    front.report(0, backlog_seconds=1.0)
    front.submit("new")
    front.die(0)
    front.start(0)
    messages = front.dispatcher.berths[0].supervisor.sent
    sent = [message.request for message in messages if isinstance(message, Submit)]
    assert {request.id: request.is_promised for request in sent} == {"accepted": True, "new": False}


@pytest.mark.parametrize(
    "traits",
    [{"width": 128}, {"loras": (LoraUse("sketch"),)}, {"prompt": "a ship"}],
    ids=["shape", "LoRA", "prompt"],
)
def test_of_workers_that_are_as_busy_the_one_with_such_company_is_taken(
    loop: asyncio.AbstractEventLoop, traits: dict[str, Any]
) -> None:
    front = Front(loop, 2)
    front.submit("other")
    front.submit("such", **traits)
    front.report(0, backlog_seconds=10.0)
    front.report(1, backlog_seconds=10.0)
    front.submit("newcomer", **traits)
    assert front.places == [["other"], ["such", "newcomer"]]


def test_who_is_cancelled_is_off_its_worker(loop: asyncio.AbstractEventLoop) -> None:
    front = Front(loop, 2)
    front.submit("a")
    front.submit("b")
    front.end("b", cancel=True)
    assert front.places == [["a"], []]
    assert front.dispatcher.berths[1].supervisor.sent[-1] == Cancel(request_id="b")


# ---------------------------------------------------------------------- workers that die


def test_what_a_dead_worker_had_goes_to_the_others_at_once(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    rides = [front.submit(str(number)) for number in range(4)]
    front.report(0, backlog_seconds=1.0)
    front.die(0)
    assert front.places == [[], ["1", "3", "0", "2"]]
    assert [ride.crashes for ride in rides] == [1, 0, 1, 0]
    assert not rides[0].accepted.is_set()


def test_a_worker_that_comes_back_gets_half_of_what_waits(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    for number in range(4):
        front.submit(str(number))
    front.die(0)
    front.start(0)
    assert front.places == [["2", "0"], ["1", "3"]]
    assert front.dispatcher.berths[1].supervisor.sent[-2:] == [
        Cancel(request_id="2"),
        Cancel(request_id="0"),
    ]


def test_who_has_begun_stays_where_it_is(loop: asyncio.AbstractEventLoop) -> None:
    front = Front(loop, 2)
    for number in range(4):
        front.submit(str(number))
    front.die(0)
    front.rides["2"].boarded.set()
    front.rides["0"].boarded.set()
    front.start(0)
    assert front.places == [["3", "1"], ["0", "2"]]


def test_what_is_soon_done_is_not_moved(loop: asyncio.AbstractEventLoop) -> None:
    front = Front(loop, 2)
    front.die(0)
    front.submit("alone")
    front.start(0)
    assert front.places == [[], ["alone"]]


def test_if_none_is_left_all_wait_in_their_order(loop: asyncio.AbstractEventLoop) -> None:
    front = Front(loop, 2)
    for number in range(3):
        front.submit(str(number))
    front.die(0)
    front.die(1)
    front.submit("3")
    assert front.places == [[], []]
    front.rides["0"].crashes = 0
    front.rides["2"].crashes = 0
    front.start(1)
    assert front.places == [[], ["0", "1", "2", "3"]]


def test_a_new_worker_serves_by_the_policy_of_now(loop: asyncio.AbstractEventLoop) -> None:
    front = Front(loop, 1)
    front.die(0)
    front.config = WorkerConfig(model="fake", policy="fcfs")
    front.start(0)
    assert front.dispatcher.berths[0].supervisor.sent == [SetPolicy(name="fcfs")]


# ---------------------------------------------------------------------- suspects


def suspected(front: Front) -> list[Ride]:
    """Two requests that were there at two deaths, one of which was in a tick; and one that goes on
    elsewhere.
    """
    rides = [front.submit("a"), front.submit("elsewhere"), front.submit("b")]
    for ride in (rides[0], rides[2]):
        ride.crashes = 1
    rides[2].ticks = 1
    front.die(0)
    return rides


def test_suspects_are_run_alone_while_other_workers_go_on(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    suspected(front)
    assert front.places == [[], ["elsewhere"]]
    front.submit("newcomer")
    front.start(0)
    front.submit("later")
    assert front.places == [["b"], ["elsewhere", "newcomer", "later"]]
    front.end("b")
    front.submit("last")
    assert front.places == [["a"], ["elsewhere", "newcomer", "later", "last"]]
    front.end("a")
    assert front.places == [["last", "later"], ["elsewhere", "newcomer"]]


def test_who_kills_a_worker_alone_is_to_blame_and_nobody_else(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    a, _, b = suspected(front)
    front.start(0)
    front.die(0)
    assert isinstance(b.answer.exception(), EngineCrash)
    assert a.crashes == 0
    assert front.places == [[], ["elsewhere", "a"]]


def test_the_last_worker_is_not_taken_for_suspects_if_another_starts(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    suspected(front)
    front.end("elsewhere")
    front.submit("newcomer")
    assert front.places == [[], ["newcomer"]]


def test_where_no_other_starts_suspects_wait_until_a_worker_has_nothing_else(
    loop: asyncio.AbstractEventLoop,
) -> None:
    front = Front(loop, 2)
    front.dispatcher.berths[0].supervisor.failure = "broken"
    suspected(front)
    front.submit("waits")
    assert front.places == [[], ["elsewhere"]]
    front.end("elsewhere")
    assert front.places == [[], ["b"]]
    front.end("b")
    front.end("a")
    assert front.places == [[], ["waits"]]
