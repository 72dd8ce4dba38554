"""The engine in this process: the offline Python API."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from PIL import Image

from chairlift.card import ModelCard
from chairlift.engine.loop import Loop
from chairlift.engine.memory import free_memory
from chairlift.engine.messages import (
    Activity,
    Cancel,
    Failed,
    Finished,
    FromEngine,
    Stop,
    Submit,
    Timings,
)
from chairlift.errors import REQUEST_ERRORS, Unavailable
from chairlift.models.adapter import Adapter
from chairlift.models.lora import LoraFile
from chairlift.models.registry import load_model
from chairlift.models.source import Progress
from chairlift.request import GenerationRequest
from chairlift.scheduling.names import DEFAULT_POLICY
from chairlift.scheduling.scheduler import MAX_BATCH_SIZE, Scheduler
from chairlift.validation import create_request


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedImage:
    """A finished picture, or video."""

    data: bytes
    """The file, in the request's output format."""
    request: GenerationRequest
    index: int
    timings: Timings

    @property
    def seed(self) -> int:
        """Generates this picture again, with the same settings and ``n`` 1."""
        return self.request.seeds[self.index]

    @property
    def image(self) -> Image.Image:
        """The picture, decoded."""
        return Image.open(BytesIO(self.data)).convert("RGB")

    def save(self, path: str | Path) -> None:
        """Write the file as it is; its format doesn't follow the path's suffix."""
        Path(path).write_bytes(self.data)


class Engine:
    """A model and its loop, on a thread of this process::

        with Engine() as engine:
            [picture] = engine.generate("a red cabin on the left at night")
            picture.save("cabin.png")

    Requests from several threads, and all of one call, are denoised together.

    Args:
        model: A folder in diffusers format, a hub id, ``fake``, a loaded adapter, or None for the
            bundled model.
        batching: ``continuous``, ``dynamic`` or ``off``.
        policy: In which order rows are served; one of
            :data:`~chairlift.scheduling.policies.POLICIES`.
        max_batch_size: The most rows in one forward; None fills it to the knee.
        batch_delay: Seconds that ``dynamic`` waits for company.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        load_format: ``auto``, or ``dummy`` for random weights where only configs are.
        loras: Paths of LoRAs by the names that requests use.
        offload_text_encoders: Text encoders rest in main memory between prompts.
        attention_backend: One of diffusers' names; None is torch's own attention.
        compile: Compile the denoiser, which takes a while at the start.
        metadata: Files carry their picture's settings.
        progress: Told what is being loaded.

    Raises:
        ModelError: The model can't be loaded.
        ConfigurationError: An option is out of bounds.
    """

    def __init__(
        self,
        model: str | Adapter | None = None,
        *,
        batching: str = "continuous",
        policy: str = DEFAULT_POLICY,
        max_batch_size: int | None = None,
        batch_delay: float = 0.0,
        device: str = "auto",
        dtype: str = "auto",
        load_format: str = "auto",
        loras: Mapping[str, str | Path] | None = None,
        offload_text_encoders: bool = False,
        attention_backend: str | None = None,
        compile: bool = False,
        metadata: bool = True,
        progress: Progress = lambda part, done, total: None,
    ) -> None:
        scheduler = Scheduler(
            batching=batching,
            policy=policy,
            max_batch_size=max_batch_size,
            batch_delay=batch_delay,
        )

        rows = max_batch_size or MAX_BATCH_SIZE

        def load() -> Adapter:
            if model is not None and not isinstance(model, str):
                return model
            return load_model(
                model,
                device=device,
                dtype=dtype,
                load_format=load_format,
                loras=[LoraFile(name, Path(path)) for name, path in (loras or {}).items()],
                offload_text_encoders=offload_text_encoders,
                attention_backend=attention_backend,
                compile_rows=rows if compile else None,
                progress=progress,
            )

        self.on_activity: Callable[[Activity], None] | None = None
        """Called with an :class:`~chairlift.engine.messages.Activity` now and then, on the
        engine's thread; None to ignore them."""
        self._pending: dict[str, tuple[GenerationRequest, Future[list[GeneratedImage]]]] = {}
        self._closed = False
        self._metadata = metadata
        loaded: Future[tuple[ModelCard, Loop]] = Future()
        # The model is loaded where it runs: OpenMP keeps threads for each thread that ever
        # computed, and if those of two are more than the cores, all of them sleep between any two
        # parallel regions, which made a small model's tick twice as long.
        self._thread = threading.Thread(
            target=self._run, args=(load, scheduler, loaded), name="engine", daemon=True
        )
        self._thread.start()
        self.card, self._loop = loaded.result()

    def generate(self, prompt: str | Sequence[str], **settings: Any) -> list[GeneratedImage]:
        """Generate and wait.

        Args:
            prompt: One prompt, or several that share the settings and ride together.
            **settings: As for :func:`chairlift.validation.create_request`: ``negative_prompt``,
                ``width``, ``height``, ``steps``, ``guidance_scale``, ``sampler``, ``seed``, ``n``,
                ``loras``, ``output_format``, and so on.

        Returns:
            ``n`` pictures for each prompt, in order.

        Raises:
            RequestError: A setting is out of bounds, or the picture could not be made.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        futures = [self.submit(text, **settings) for text in prompts]
        return [picture for future in futures for picture in future.result()]

    def submit(self, prompt: str, **settings: Any) -> Future[list[GeneratedImage]]:
        """Start to generate; the future has the pictures. Cancelling it frees the slots.

        Raises:
            InvalidRequest: A setting is out of bounds.
            Unavailable: The engine is closed.
        """
        request = create_request(self.card, id=uuid.uuid4().hex, prompt=prompt, **settings)
        future: Future[list[GeneratedImage]] = Future()
        if self._closed:
            raise Unavailable("the engine is closed")
        self._pending[request.id] = (request, future)
        self._loop.send(Submit(request=request))
        future.add_done_callback(lambda done: self._drop(request.id, done))
        return future

    def close(self) -> None:
        """Stop after the running tick; what isn't finished fails with Unavailable."""
        self._closed = True
        self._loop.send(Stop())
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(
        self,
        load: Callable[[], Adapter],
        scheduler: Scheduler,
        loaded: Future[tuple[ModelCard, Loop]],
    ) -> None:
        try:
            adapter = load()
            scheduler.limit_memory(free_memory(adapter.device))
            loop = Loop(adapter, scheduler, self._receive, metadata=self._metadata)
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result((adapter.card, loop))
        try:
            loop.run()
        finally:
            self._closed = True
            for _, future in list(self._pending.values()):
                if not future.done():
                    future.set_exception(Unavailable("the engine was closed"))

    def _drop(self, request_id: str, future: Future[list[GeneratedImage]]) -> None:
        if self._pending.pop(request_id, None) and future.cancelled():
            self._loop.send(Cancel(request_id=request_id))

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Finished(request_id=request_id, images=images, timings=timings):
                request, future = self._pending.get(request_id, (None, None))
                if request is None or future is None or not future.set_running_or_notify_cancel():
                    return
                future.set_result(
                    [
                        GeneratedImage(data=data, request=request, index=index, timings=timings)
                        for index, data in enumerate(images)
                    ]
                )
            case Failed(request_id=request_id, code=code, message=text, param=param):
                _, future = self._pending.get(request_id, (None, None))
                if future is not None and future.set_running_or_notify_cancel():
                    future.set_exception(REQUEST_ERRORS[code](text, param=param))
            case Activity() if self.on_activity is not None:
                self.on_activity(message)
