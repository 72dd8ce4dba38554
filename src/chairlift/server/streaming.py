"""``POST /v1/images/generations`` with ``stream: true``: half-made pictures, and then the whole
ones, as the events that OpenAI's clients expect.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from fastapi import Request
from starlette.responses import Response

from chairlift.engine.messages import Finished, Preview
from chairlift.engine.ride import Ride
from chairlift.errors import RequestError
from chairlift.request import GenerationRequest
from chairlift.server.admission import ride_headers
from chairlift.server.events import EventStream, Outbox, format_event
from chairlift.server.partials import Partials
from chairlift.server.schema import CompletedImage
from chairlift.server.waiting import while_connected


async def stream_images(
    request: Request, ride: Ride, warnings: list[str], ending: ExitStack, keep: bool = False
) -> Response:
    """The stream of a request, which begins when the engine has accepted it.

    Args:
        request: The caller's.
        ride: What it has become.
        warnings: For the last events.
        ending: What is to be closed at the end of the stream; it is taken over.
        keep: Whether it goes on when its reader goes away.

    Raises:
        RequestError: The engine doesn't take it, or the caller has gone.
    """
    outbox, partials = Outbox(), Partials(ride.request)

    def show(preview: Preview) -> None:
        if partial := partials.number(preview):
            outbox.put(format_event(partial, "image_generation.partial_image"), missable=True)

    def end(_: object) -> None:
        for event in _last_events(ride, warnings):
            outbox.put(event)
        outbox.close()

    if not keep:
        ending.callback(ride.answer.cancel)
    ride.is_streamed = True
    ride.listeners.add(show)
    ending.callback(ride.listeners.discard, show)
    ride.answer.add_done_callback(end)
    await while_connected(request, ride.reach(ride.accepted))
    if ride.answer.done():
        ride.answer.result()
    return EventStream(aiter(outbox), ending.pop_all().close, ride_headers(ride))


def _last_events(ride: Ride, warnings: list[str]) -> list[bytes]:
    if ride.answer.cancelled():
        return []
    error = ride.answer.exception()
    if error is None:
        return completed_events(ride.request, ride.answer.result(), warnings)
    if not isinstance(error, RequestError):
        error = RequestError("an internal error has occurred")
    return [format_event({"error": error.to_object()}, "error")]


def completed_events(
    request: GenerationRequest, finished: Finished, warnings: list[str]
) -> list[bytes]:
    """One event for each picture."""
    return [
        format_event(
            CompletedImage(
                b64_json=image,
                created_at=int(time.time()),
                size=request.size,
                output_format=request.output_format,
                image_index=index,
                seed=request.seeds[index],
                timings=finished.timings,
                warnings=warnings,
            ),
            "image_generation.completed",
        )
        for index, image in enumerate(finished.images)
    ]
