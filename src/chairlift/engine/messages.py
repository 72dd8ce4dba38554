"""What crosses the boundary of the engine: MessagePack, typed, never pickle.

To the engine go :data:`ToEngine`, from it come :data:`FromEngine`. The types are the same whether
the engine is in this process or in another.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from chairlift.card import ModelCard
from chairlift.request import GenerationRequest, RowId

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The base of all of them."""


class Submit(Message, frozen=True):
    """Generate this. Answered by Finished or Failed, exactly once."""

    request: GenerationRequest


class Cancel(Message, frozen=True):
    """Stop this request. Answered by Failed with the code ``cancelled``, unless it has ended."""

    request_id: str


class SetPolicy(Message, frozen=True):
    """Serve in the order of this policy from the next tick on."""

    name: str


class Stop(Message, frozen=True):
    """End the process as soon as the running tick is over."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request's time went, in seconds. Of several rows, the slowest."""

    queue_s: float
    encode_s: float
    denoise_s: float
    decode_s: float
    total_s: float
    steps: int
    """Sampler steps of each row."""


class Alive(Message, frozen=True):
    """The process runs, though it isn't ready."""


class Devices(Message, frozen=True):
    """How many devices there are that could each have a worker."""

    count: int


class Loading(Message, frozen=True):
    """The model is being loaded."""

    part: str
    done: int
    total: int


class Ready(Message, frozen=True):
    """The engine takes requests."""

    card: ModelCard


class StartFailed(Message, frozen=True):
    """The engine can't start; the process ends."""

    reason: str


class Busy(Message, frozen=True):
    """Nothing is going to be said for long, and yet nothing is wrong."""

    seconds: float
    """How long that is predicted to be."""


class Accepted(Message, frozen=True):
    """A request is in the queue."""

    request_id: str
    eta_s: float
    """In how many seconds it is predicted to be done."""


class Preview(Message, frozen=True):
    """How a picture looks that isn't done."""

    row: RowId
    step: int
    """Sampler steps behind it."""
    image: bytes
    """A file in the request's format, of the picture's size."""


class Finished(Message, frozen=True):
    """A request is done."""

    request_id: str
    images: list[bytes]
    """One file for each row, in order."""
    timings: Timings


class Failed(Message, frozen=True):
    """A request has ended without pictures."""

    request_id: str
    code: str
    message: str
    param: str | None = None


class Rider(msgspec.Struct, frozen=True, array_like=True):
    """One row of a tick."""

    row: RowId
    step: int
    """Evaluations behind it, before this tick."""
    evaluations: int


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What one tick did."""

    seconds: float
    width: int
    """Pixels."""
    height: int
    frames: int
    """1 is a picture."""
    entries: int
    """Of the forward: a row with classifier-free guidance takes two."""
    riders: list[Rider]
    worker: int = 0
    """Which of several workers made it; the front end knows."""


class Activity(Message, frozen=True):
    """The ticks since the last report, and where things stand."""

    ticks: list[Tick]
    running: int
    waiting: int
    backlog_seconds: float
    eta_s: dict[str, float] = {}
    """For each request, in how many seconds it is predicted to be done; empty in reports in which
    that isn't said, which are the more the longer the queue is."""


IDLE = Activity(ticks=[], running=0, waiting=0, backlog_seconds=0.0)
"""Nothing has happened, and nothing is there."""

ToEngine = Submit | Cancel | SetPolicy | Stop
FromEngine = (
    Alive
    | Devices
    | Loading
    | Ready
    | StartFailed
    | Busy
    | Accepted
    | Preview
    | Finished
    | Failed
    | Activity
)

encode = msgspec.msgpack.Encoder().encode
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)
_STRAY_ERRORS = (UnicodeDecodeError, RecursionError)
"""What msgspec raises beside its own errors: of text that isn't UTF-8, and of nesting without end.
"""


def decode_to_engine(frame: bytes) -> ToEngine:
    """A message to the engine.

    Raises:
        msgspec.MsgspecError: The frame is none.
    """
    return _decode(_to_engine, frame)


def decode_from_engine(frame: bytes) -> FromEngine:
    """A message from the engine.

    Raises:
        msgspec.MsgspecError: The frame is none.
    """
    return _decode(_from_engine, frame)


def _decode(decoder: msgspec.msgpack.Decoder[T], frame: bytes) -> T:
    try:
        return decoder.decode(frame)
    except _STRAY_ERRORS as error:
        raise msgspec.DecodeError(f"MessagePack data is malformed: {error}") from error
