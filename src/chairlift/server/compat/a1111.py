"""AUTOMATIC1111's HTTP interface, as its clients call it, onto the same engine: ``txt2img``,
``progress``, ``interrupt``, and what clients ask when they start.

Interface: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from chairlift import __version__
from chairlift.card import ModelCard
from chairlift.engine.ride import Ride
from chairlift.errors import InvalidRequest, RequestCancelled, RequestError
from chairlift.metadata import SAMPLER_NAMES, PictureSettings
from chairlift.request import GenerationRequest
from chairlift.server.access import owner
from chairlift.server.admission import admit, require_pictures
from chairlift.server.compat.a1111_names import (
    AUTOMATIC,
    automatic,
    check_options,
    options_of,
    sampler_names,
)
from chairlift.server.compat.a1111_schema import TextToImageBody, in_their_words
from chairlift.server.refusals import error_response, explain
from chairlift.server.state import state_of
from chairlift.server.waiting import unless_disconnected

INVALID_STATUS = 422
"""Of a wrong value, there."""


class Task:
    """A ``txt2img`` that has not ended.

    Args:
        ride: Its request in the engine.
    """

    def __init__(self, ride: Ride) -> None:
        self.ride = ride
        self.timestamp = datetime.now().strftime("%Y%m%d%H%M%S")

    @property
    def state(self) -> dict[str, Any]:
        """As ``progress`` has it."""
        steps, request = self.ride.steps, self.ride.request
        return _IDLE | {
            "job": "txt2img",
            "job_count": 1,
            "job_timestamp": self.timestamp,
            "sampling_step": sum(steps) // len(steps),
            "sampling_steps": request.steps,
        }

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return sum(self.ride.steps) / (self.ride.request.steps * self.ride.request.n)

    @property
    def preview(self) -> bytes | None:
        """The newest, of the first picture; a PNG."""
        newest = self.ride.previews.get(0)
        return newest.image if newest else None


_IDLE: dict[str, Any] = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_timestamp": "0",
    "job_no": 0,
    "sampling_step": 0,
    "sampling_steps": 0,
}


class _Route(APIRoute):
    """Its refusals have AUTOMATIC1111's ``detail``, ``errors`` and ``body`` beside OpenAI's
    ``error``.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_or_refuse(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestError as error:
                return _refusal(request, error)
            except RequestValidationError as error:
                return _refusal(request, explain(error))

        return handle_or_refuse


def _refusal(request: Request, error: RequestError) -> Response:
    refused = error_response(request, error)  # It is counted there, and has its headers.
    texts = {"detail": error.message, "errors": error.message, "body": ""}
    return JSONResponse(
        {"error": error.to_object()} | texts,
        status_code=INVALID_STATUS if isinstance(error, InvalidRequest) else error.status,
        headers={
            name: refused.headers[name] for name in ("Retry-After",) if name in refused.headers
        },
    )


# Theirs isn't a part of our OpenAPI description.
router = APIRouter(prefix="/sdapi/v1", route_class=_Route, include_in_schema=False)
PING = "/internal/ping"
PATHS = (f"{router.prefix}/", PING)
"""How the paths of all routes begin. Clients send a user and a password there."""


def install(app: FastAPI) -> None:
    """Add the routes to the application."""
    app.state.a1111_tasks = {}
    app.include_router(router)
    app.add_api_route(PING, ping, include_in_schema=False)


def _tasks(request: Request) -> dict[str, Task]:
    """Those that have not ended, by the id of their request, in the order in which they came."""
    tasks: dict[str, Task] = request.app.state.a1111_tasks
    return tasks


def _own_tasks(request: Request) -> dict[str, Task]:
    """Those whose caller may see and end them."""
    who = owner.get()
    return {
        id: task for id, task in _tasks(request).items() if who in ("", task.ride.request.owner)
    }


def _card(request: Request) -> ModelCard:
    return state_of(request).client.card


# ---------------------------------------------------------------------- pictures


@router.post("/txt2img")
async def text_to_image(body: TextToImageBody, request: Request) -> Response:
    """Generate pictures and wait for them. If it is interrupted, there are none."""
    state, tasks = state_of(request), _tasks(request)
    card = state.client.card
    require_pictures(card)
    try:
        generation = admit(state, body.to_body(card), "req")
    except InvalidRequest as error:
        raise in_their_words(error, card) from None
    ride = state.client.submit(generation)
    task = tasks[generation.id] = Task(ride)
    ride.answer.add_done_callback(lambda _: tasks.pop(generation.id))
    try:
        images = (await unless_disconnected(request, ride)).images
    except RequestCancelled:
        images = []
    info = _describe(generation, card, body.batch_size or 1, len(images), task.timestamp)
    sent = [] if body.send_images is False else images
    return _answer(
        {"images": sent, "parameters": body.served, "info": msgspec.json.encode(info).decode()}
    )


def _describe(
    request: GenerationRequest, card: ModelCard, batch_size: int, made: int, timestamp: str
) -> dict[str, Any]:
    """What AUTOMATIC1111 says of pictures. What can't be served has the value that is off."""
    negative_prompt = request.negative_prompt or ""
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * request.n,
        "negative_prompt": negative_prompt,
        "all_negative_prompts": [negative_prompt] * request.n,
        "seed": request.seed,
        "all_seeds": request.seeds,
        "subseed": request.seed,
        "all_subseeds": request.seeds,
        "subseed_strength": 0,
        "width": request.width,
        "height": request.height,
        "sampler_name": SAMPLER_NAMES.get(request.sampler, (request.sampler, None))[0],
        "cfg_scale": request.cfg_scale,
        "steps": request.steps,
        "batch_size": batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": card.id,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [str(PictureSettings.of(request, image, card)) for image in range(made)],
        "styles": [],
        "job_timestamp": timestamp,
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"chairlift {__version__}",
        "warnings": request.warnings,
    }


@router.get("/progress")
async def progress(request: Request, skip_current_image: bool = False) -> Response:
    """How far the oldest ``txt2img`` is that has not ended."""
    task = next(iter(_own_tasks(request).values()), None)
    if task is None:
        return _progress(0.0, 0.0, _IDLE, None, None)
    eta = task.ride.eta_s(asyncio.get_running_loop().time()) or 0.0
    text = None if task.ride.boarded.is_set() else "Waiting..."
    return _progress(
        task.progress, eta, task.state, None if skip_current_image else task.preview, text
    )


def _progress(
    progress: float, eta: float, state: dict[str, Any], image: bytes | None, text: str | None
) -> Response:
    return _answer(
        {
            "progress": progress,
            "eta_relative": eta,
            "state": state,
            "current_image": image,
            "textinfo": text,
        }
    )


@router.post("/interrupt")
async def interrupt(request: Request) -> dict[str, Any]:
    """End every ``txt2img`` of the caller's; they answer without pictures."""
    for id in _own_tasks(request):
        state_of(request).client.cancel(id)
    return {}


# ---------------------------------------------------------------------- what there is


@router.get("/samplers")
async def samplers(request: Request) -> list[dict[str, Any]]:
    """The model's samplers, under the names that are known there."""
    return [
        {"name": name, "aliases": list(ours.values()), "options": {"scheduler": automatic(ours)}}
        for name, ours in sampler_names(_card(request)).items()
    ]


@router.get("/schedulers")
async def schedulers(request: Request) -> list[dict[str, Any]]:
    """The spacings of noise levels that any of the samplers has."""
    known = (spacing for ours in sampler_names(_card(request)).values() for spacing in ours)
    return [
        {
            "name": name,
            "label": name.capitalize(),
            "aliases": None,
            "default_rho": -1,
            "need_inner_model": False,
        }
        for name in dict.fromkeys((AUTOMATIC, *known))
    ]


@router.get("/sd-models")
async def models(request: Request) -> list[dict[str, str | None]]:
    """The served model."""
    name = _card(request).id
    names = {"title": name, "model_name": name, "filename": name}
    return [names | {"hash": None, "sha256": None, "config": None}]


@router.get("/loras")
async def loras(request: Request) -> list[dict[str, Any]]:
    """The LoRAs that a prompt may name."""
    return [
        {"name": name, "alias": name, "path": name, "metadata": {}} for name in _card(request).loras
    ]


@router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """The settings that clients look at."""
    return options_of(_card(request))


@router.post("/options")
async def set_options(given: dict[str, Any], request: Request) -> None:
    """Settings can't be changed, but may be said as they are."""
    check_options(_card(request), given)


@router.get("/scripts")
async def scripts() -> dict[str, list[str]]:
    """There are none."""
    return {"txt2img": [], "img2img": []}


@router.get("/embeddings")
async def embeddings() -> dict[str, dict[str, Any]]:
    """There are none."""
    return {"loaded": {}, "skipped": {}}


@router.get("/upscalers")
async def upscalers() -> list[dict[str, Any]]:
    """Only the one that does nothing, which clients have first in their lists."""
    return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}]


@router.get("/latent-upscale-modes")
@router.get("/sd-vae")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/prompt-styles")
async def nothing() -> list[dict[str, Any]]:
    """There are none."""
    return []


@router.post("/refresh-checkpoints")
@router.post("/refresh-vae")
@router.post("/refresh-loras")
@router.post("/refresh-embeddings")
async def refresh() -> None:
    """What there is doesn't change; clients ask for it before they read a list again."""


async def ping() -> dict[str, Any]:
    """Whether the server is alive."""
    return {}


def _answer(data: dict[str, Any]) -> Response:
    """JSON, in which bytes are base64."""
    return Response(msgspec.json.encode(data), media_type="application/json")
