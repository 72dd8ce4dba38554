"""What the engine predicts at acceptance, and whom it refuses for it."""

from __future__ import annotations

from dataclasses import replace

from chairlift.engine.loop import Loop
from chairlift.engine.messages import Accepted, Failed, Finished, FromEngine, SetPolicy, Submit
from chairlift.models.fake import FakeModel
from chairlift.scheduling.scheduler import Scheduler
from tests.builders import a_request


def run(
    strict: bool, promised: bool = False, **settings: object
) -> tuple[list[Finished], list[Failed]]:
    """A first request teaches what steps cost, a second has the settings."""
    said: list[FromEngine] = []
    loop = Loop(FakeModel(step_seconds=0.005), Scheduler(), said.append, strict=strict)
    second = replace(a_request("second", **settings), is_promised=promised)
    for request in (a_request("first"), second):
        loop.send(Submit(request=request))
        while request.id not in {
            message.request_id for message in said if isinstance(message, Finished | Failed)
        }:
            loop.turn()
    finished = [message for message in said if isinstance(message, Finished)]
    return finished, [message for message in said if isinstance(message, Failed)]


def test_a_request_that_can_not_make_its_deadline_is_refused_with_the_predicted_time() -> None:
    finished, [refused] = run(True, deadline_ms=2, steps=50)
    assert [message.request_id for message in finished] == ["first"]
    assert (refused.code, refused.param) == ("deadline_unattainable", "deadline_ms")
    assert refused.message.startswith("deadline_ms is 2; the pictures are predicted in ")
    assert 100 < float(refused.message.split()[-2]) < 10_000


def test_one_that_can_is_not() -> None:
    finished, refused = run(True, deadline_ms=60_000, steps=50)
    assert len(finished) == 2
    assert refused == []


def test_one_that_was_accepted_before_is_late() -> None:
    finished, refused = run(True, promised=True, deadline_ms=2, steps=50)
    assert len(finished) == 2
    assert refused == []


def test_without_strict_admission_it_is_late() -> None:
    finished, refused = run(False, deadline_ms=2, steps=50)
    assert len(finished) == 2
    assert refused == []


def test_the_prediction_comes_at_acceptance() -> None:
    said: list[FromEngine] = []
    loop = Loop(FakeModel(step_seconds=0.005), Scheduler(), said.append)
    for count, id in enumerate(("first", "second"), 1):
        loop.send(Submit(request=a_request(id, steps=50)))
        while sum(isinstance(message, Finished) for message in said) < count:
            loop.turn()
    accepted = [message for message in said if isinstance(message, Accepted)]
    assert [message.request_id for message in accepted] == ["first", "second"]
    assert 0.1 < accepted[1].eta_s < 10


def test_the_policy_may_be_changed_by_a_message() -> None:
    scheduler = Scheduler()
    loop = Loop(FakeModel(), scheduler, lambda message: None)
    changed: list[str] = []
    scheduler.set_policy = changed.append  # type: ignore[method-assign]
    loop.send(SetPolicy(name="srpt"))
    loop.turn()
    assert changed == ["srpt"]


def test_a_picture_that_could_never_fit_into_memory_is_refused() -> None:
    said: list[FromEngine] = []
    scheduler = Scheduler()
    scheduler.limit_memory(2**20)
    loop = Loop(FakeModel(), scheduler, said.append)
    loop.send(Submit(request=a_request("large", width=512, height=512)))
    loop.send(Submit(request=a_request("small", width=8, height=8)))
    while not any(isinstance(message, Finished) for message in said):
        loop.turn()
    [refused] = [message for message in said if isinstance(message, Failed)]
    assert (refused.request_id, refused.param) == ("large", "size")
    assert refused.message.startswith("size is 512x512; a picture of it takes 1.0 GiB, and 0.0 ")
