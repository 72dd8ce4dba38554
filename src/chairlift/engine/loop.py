"""The engine's loop: one thread that does everything on the device.

A turn is: read the mailbox, ``plan → run → update``, decode a few of the rows that are done.
Pictures become files on other threads, which write to the mailbox too.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from chairlift.engine.decoder import Decoded, Decoder, Pixels
from chairlift.engine.files import encode_file
from chairlift.engine.ledger import Ledger
from chairlift.engine.messages import (
    Accepted,
    Cancel,
    Failed,
    Finished,
    FromEngine,
    SetPolicy,
    Stop,
    Submit,
    ToEngine,
)
from chairlift.engine.previews import Previews
from chairlift.engine.reporter import Reporter
from chairlift.engine.runner import Runner, RunResult
from chairlift.errors import (
    DeadlineUnattainable,
    DecodeFailed,
    InvalidRequest,
    RequestCancelled,
    RequestError,
    ScheduleFailed,
)
from chairlift.metadata import PictureSettings
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest, RowId, Status
from chairlift.scheduling.costs import Shape
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.scheduler import Scheduler
from chairlift.scheduling.work import RowWork

logger = logging.getLogger(__name__)

MESSAGES = 64
"""The most that are read between two ticks; a flood of them doesn't hold up who is aboard."""
IMAGE_THREADS = 2


@dataclass(frozen=True, slots=True)
class FileDone:
    """From an image thread: a row's file was written and answered, or there is none."""

    request_id: str
    written: bool


class Loop:
    """The engine without a process around it.

    Args:
        adapter: The model.
        scheduler: Chooses the rows of every tick.
        sink: Called with everything that the engine has to say, on the loop's thread, or on the
            one that wrote a request's last file. It must not block.
        strict: Refuse requests that are predicted to miss their deadline.
        metadata: Files carry their picture's settings.
    """

    def __init__(
        self,
        adapter: Adapter,
        scheduler: Scheduler,
        sink: Callable[[FromEngine], None],
        strict: bool = False,
        metadata: bool = True,
    ) -> None:
        self._adapter = adapter
        self._scheduler = scheduler
        self._sink = sink
        self._strict = strict
        self._metadata = metadata
        self._mailbox: queue.SimpleQueue[ToEngine | FileDone] = queue.SimpleQueue()
        self._ledger = Ledger()
        self._runner = Runner(adapter)
        self._decoder = Decoder(adapter)
        self._images = ThreadPoolExecutor(IMAGE_THREADS, thread_name_prefix="image")
        self._previews = Previews(adapter, sink, self._images)
        self._newcomers: list[GenerationRequest] = []
        """Accepted, but their callers don't know it yet."""
        self._reporter = Reporter(scheduler, self._ledger, sink)
        self._stopped = False

    def send(self, message: ToEngine) -> None:
        """Put a message into the mailbox; from any thread."""
        self._mailbox.put(message)

    def run(self) -> None:
        """Turn until a Stop is read."""
        try:
            while not self._stopped:
                self.turn()
        finally:
            self._images.shutdown(wait=False, cancel_futures=True)

    def turn(self) -> None:
        """One turn. If there is nothing to do, it waits for a message."""
        plan = self._scheduler.plan(time.monotonic())
        if plan.key is not None:
            self._run(plan)
        self._decode(wait=plan.key is None)
        self._reporter.report(at_once=plan.key is None)
        busy = plan.key is not None or len(self._decoder) > 0
        self._read_mailbox(None if busy else plan.wake_at, wait=not busy)

    # ------------------------------------------------------------------ the mailbox

    def _read_mailbox(self, wake_at: float | None, wait: bool) -> None:
        """Handle the messages, at most :data:`MESSAGES` of them; if ``wait``, first wait for one,
        at most until ``wake_at``.
        """
        try:
            if wait:
                timeout = None if wake_at is None else max(0.0, wake_at - time.monotonic())
                self._handle(self._mailbox.get(timeout=timeout))
            for _ in range(MESSAGES):
                if self._stopped:
                    break
                self._handle(self._mailbox.get_nowait())
        except queue.Empty:
            pass
        self._accept_newcomers()

    def _handle(self, message: ToEngine | FileDone) -> None:
        match message:
            case Submit(request=request):
                self._submit(request)
            case Cancel(request_id=request_id):
                self._end(request_id, RequestCancelled("the request was cancelled"))
            case FileDone(request_id=request_id, written=False):
                self._end(request_id, DecodeFailed("the picture could not be written"))
            case SetPolicy(name=name):
                self._scheduler.set_policy(name)
            case Stop():
                self._stopped = True

    def _submit(self, request: GenerationRequest) -> None:
        now = time.monotonic()
        try:
            legs = self._runner.legs(request)
        except Exception:
            logger.exception("a schedule could not be made")
            self._fail(request.id, ScheduleFailed("the model has no schedule for these settings"))
            return
        slot, decode = self._runner.slot_memory(request), self._adapter.decode_memory(request)
        memory = slot + decode
        if memory > self._scheduler.memory:
            self._fail(
                request.id,
                InvalidRequest(
                    f"size is {request.width}x{request.height}; a picture of it takes "
                    f"{memory / 2**30:.1f} GiB, and {self._scheduler.memory / 2**30:.1f} are free",
                    param="size",
                ),
            )
            return
        self._ledger.open(request, sum(leg.evaluations for leg in legs), now)
        self._scheduler.submit(
            RowWork(
                id=row,
                legs=legs,
                shape=Shape.of(request),
                slot_memory=slot,
                decode_memory=decode,
                settings=request.settings,
                arrival=now,
                deadline=None if request.deadline is None else now + request.deadline,
                priority=request.priority,
                caller=request.caller,
            )
            for row in request.row_ids
        )
        if self._strict and request.deadline is not None and not request.is_promised:
            self._check_deadline(request, request.deadline, now)
        else:
            self._newcomers.append(request)

    def _check_deadline(self, request: GenerationRequest, deadline: float, now: float) -> None:
        """Accept or refuse a request beside those that came before it; whoever comes after it finds
        it there, or not.
        """
        eta = self._scheduler.predict(now, request.row_ids)[request.id]
        if eta <= deadline:
            self._sink(Accepted(request_id=request.id, eta_s=eta))
            return
        self._end(
            request.id,
            DeadlineUnattainable(
                f"deadline_ms is {deadline * 1000:.0f}; the pictures are predicted in "
                f"{eta * 1000:.0f} ms",
                param="deadline_ms",
            ),
        )

    def _accept_newcomers(self) -> None:
        """Say by when they will be done. One prediction serves all of them: it is dear in a long
        queue, and whoever came just after somebody belongs into it too.
        """
        here = [request for request in self._newcomers if request.id in self._ledger]
        self._newcomers.clear()
        if not here:
            return
        rows = [row for request in here for row in request.row_ids]
        predicted = self._scheduler.predict(time.monotonic(), rows)
        for request in here:
            self._sink(Accepted(request_id=request.id, eta_s=predicted[request.id]))

    # ------------------------------------------------------------------ a tick

    def _run(self, plan: Plan) -> None:
        start = time.monotonic()
        self._reporter.announce(self._scheduler.predict_tick(plan))
        for row in plan.joining:
            self._ledger.move(row, Status.ENCODING, start)
        result = self._runner.run(plan, self._ledger.requests)
        # No tick is begun before the last has ended: whoever came meanwhile would have to wait for
        # all that is queued, and nobody would know what a step costs.
        result.wait()
        self._scheduler.update(
            TickResult(
                plan=plan,
                failed=frozenset(result.failed),
                seconds=result.seconds,
                encode_seconds=result.encode_seconds,
                entries=result.entries,
                out_of_memory=result.out_of_memory,
            )
        )
        self._reporter.record(plan, result)
        self._show(plan, result)
        self._settle(plan, result, start)
        if result.finished:  # Before their pictures, so that it is known with how many they rode.
            self._reporter.report(at_once=True)

    def _settle(self, plan: Plan, result: RunResult, start: float) -> None:
        """Write what has happened into the ledger, and pass on what is finished."""
        now = time.monotonic()
        for row in plan.joining:
            if row not in result.failed:
                self._ledger.move(row, Status.DENOISING, start + result.encode_seconds)
        for row, latents in result.finished.items():
            self._ledger.move(row, Status.DECODING, now)
            self._decoder.submit(row, latents)
        for row, error in result.failed.items():
            self._end(row.request_id, error)

    def _show(self, plan: Plan, result: RunResult) -> None:
        """Previews of the rows that are due."""
        if not result.previews:
            return
        done = dict(zip(plan.running, plan.steps, strict=True))
        requests = self._ledger.requests
        steps = {
            row: requests[row.request_id].steps * (done[row] + 1) // self._ledger.evaluations(row)
            for row in result.previews
        }
        self._previews.show(result.previews, steps, requests)

    def _decode(self, wait: bool) -> None:
        self._reporter.announce(sum(map(self._decode_seconds, self._decoder.next_rows)))
        for decoded in self._decoder.run(wait):
            request = self._ledger.requests.get(decoded.row.request_id)
            if request is None:
                continue
            if isinstance(decoded.outcome, RequestError):
                self._end(request.id, decoded.outcome)
            else:
                self._scheduler.decoded(Shape.of(request), decoded.seconds)
                preview = self._previews.take(decoded.row)
                self._images.submit(self._encode_image, decoded, decoded.outcome, request, preview)

    def _decode_seconds(self, row: RowId) -> float:
        request = self._ledger.requests.get(row.request_id)
        return 0.0 if request is None else self._scheduler.costs.decode(Shape.of(request))

    def _encode_image(
        self,
        decoded: Decoded,
        pixels: Pixels,
        request: GenerationRequest,
        preview: Future[None] | None,
    ) -> None:
        """On an image thread, which answers by itself: the next tick may be long. Its last
        ``preview``, which was handed to these threads before, is said before.
        """
        row = decoded.row
        if preview is not None:
            wait([preview])
        try:
            image = encode_file(pixels, request, self._settings(request, row.image))
        except Exception:
            logger.exception("a picture could not be written")
            self._mailbox.put(FileDone(row.request_id, written=False))
            return
        if done := self._ledger.finish(row, image, time.monotonic()):
            self._sink(
                Finished(request_id=row.request_id, images=done.images, timings=done.timings)
            )
        self._mailbox.put(FileDone(row.request_id, written=True))
        self._previews.learn(decoded)

    def _settings(self, request: GenerationRequest, image: int) -> str | None:
        """What the file says of the picture."""
        if not self._metadata:
            return None
        return str(PictureSettings.of(request, image, self._adapter.card))

    def _end(self, request_id: str, error: RequestError) -> None:
        """End a request without pictures, wherever its rows are."""
        cancelled = isinstance(error, RequestCancelled)
        status = Status.CANCELLED if cancelled else Status.FAILED
        rows = self._ledger.abandon(request_id, status, time.monotonic())
        if not rows:  # It has ended already.
            return
        self._scheduler.cancel(rows)
        self._runner.release(rows)
        self._decoder.cancel(set(rows))
        for row in rows:
            self._previews.take(row)
        self._fail(request_id, error)

    def _fail(self, request_id: str, error: RequestError) -> None:
        self._sink(
            Failed(request_id=request_id, code=error.code, message=error.message, param=error.param)
        )
