"""Everything that Chairlift raises on purpose.

* ChairliftError
  * ConfigurationError: an option or the surroundings are wrong (exit code 2)
    * ModelError: a model folder is missing, incomplete or not supported
  * IllegalTransition: a row or a job was moved to a status that it can't reach
  * RequestError: one request can't be served
    * InvalidRequest (400)
    * InvalidApiKey (401)
    * CrossSiteRequest (403)
    * UnknownModel, UnknownRequest, UnknownJob, UnknownPicture (404)
    * RequestTimeout (408)
    * JobFinished, JobNotFinished (409)
    * PayloadTooLarge (413)
    * UnsupportedMediaType (415)
    * RangeNotSatisfiable (416)
    * MisdirectedRequest (421)
    * IdempotencyMismatch (422)
    * QueueFull, DeadlineUnattainable, TooManyStreams (429)
      * KeyQueueFull
    * HeadTooLarge (431)
    * RequestCancelled (499)
    * GenerationFailed (500)
      * ScheduleFailed, EncodeFailed, StepFailed, DecodeFailed, NumericalError, EngineCrash,
        StorageFailed (503)
    * Unsupported (501)
    * Unavailable (503)

A :class:`RequestError` knows its HTTP status and the fields of OpenAI's error object. It crosses
the process boundary as its ``code``, ``message`` and ``param``.
"""

from __future__ import annotations

from typing import ClassVar


class ChairliftError(Exception):
    """The root of the tree."""


class ConfigurationError(ChairliftError):
    """An option or the surroundings are wrong: one line for the operator, exit code 2."""


class ModelError(ConfigurationError):
    """A model can't be loaded; the message says what is missing."""


class IllegalTransition(ChairliftError):
    """A row or a job was moved to a status that it can't reach from where it is."""


class RequestError(ChairliftError):
    """One request can't be served.

    Args:
        message: What is wrong, with the value and the bound.
        param: The field that is wrong, where one is.
        retry_after: Seconds after which a new attempt makes sense, where that is known.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.after_acceptance = False
        """Whether it has ended a request that had been accepted, and so refuses nothing."""

    @classmethod
    def is_refusal(cls) -> bool:
        """Whether it means, said before a request is accepted, that it isn't."""
        return 400 <= cls.status < RequestCancelled.status or cls.status == Unavailable.status

    def to_object(self) -> dict[str, str | None]:
        """OpenAI's error object."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class InvalidRequest(RequestError):
    """A field is missing, unknown or out of bounds."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class InvalidApiKey(RequestError):
    """The request has no API key, or a wrong one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class CrossSiteRequest(RequestError):
    """A web page of another site made the browser send it."""

    status = 403
    type = "invalid_request_error"
    code = "cross_site_request"


class UnknownModel(RequestError):
    """The request names a model that isn't served here."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class UnknownRequest(RequestError):
    """The request isn't here, or is finished."""

    status = 404
    type = "invalid_request_error"
    code = "request_not_found"


class UnknownJob(RequestError):
    """There is no job with this id, or no longer."""

    status = 404
    type = "invalid_request_error"
    code = "job_not_found"


class JobFinished(RequestError):
    """The job has ended, and can't be cancelled any more."""

    status = 409
    type = "invalid_request_error"
    code = "job_finished"


class JobNotFinished(RequestError):
    """The job has no pictures, or has not ended and can't be removed."""

    status = 409
    type = "invalid_request_error"
    code = "job_not_finished"


class UnsupportedMediaType(RequestError):
    """The body isn't sent as JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RangeNotSatisfiable(RequestError):
    """The file ends before the range that was asked for."""

    status = 416
    type = "invalid_request_error"
    code = "range_not_satisfiable"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        size: int = 0,
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.size = size
        """The file's, in bytes."""


class MisdirectedRequest(RequestError):
    """The request is for another host than this server."""

    status = 421
    type = "invalid_request_error"
    code = "misdirected_request"


class IdempotencyMismatch(RequestError):
    """An idempotency key came with another request before."""

    status = 422
    type = "invalid_request_error"
    code = "idempotency_mismatch"


class UnknownPicture(RequestError):
    """The job has no picture of this number."""

    status = 404
    type = "invalid_request_error"
    code = "image_not_found"


class RequestTimeout(RequestError):
    """The body was sent too slowly."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class PayloadTooLarge(RequestError):
    """The body is larger than the server reads."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class QueueFull(RequestError):
    """As many rows as the server keeps are already accepted."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class KeyQueueFull(QueueFull):
    """As many rows as one API key may have are already accepted."""

    code = "key_queue_full"


class DeadlineUnattainable(RequestError):
    """By all predictions the pictures can't be there when the caller wants them."""

    status = 429
    type = "rate_limit_error"
    code = "deadline_unattainable"


class TooManyStreams(RequestError):
    """As many event streams as there may be are open."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_streams"


class HeadTooLarge(RequestError):
    """The line and the headers of a request are more than the server reads."""

    status = 431
    type = "invalid_request_error"
    code = "head_too_large"


class RequestCancelled(RequestError):
    """The caller went away or asked to stop."""

    status = 499
    type = "invalid_request_error"
    code = "cancelled"


class GenerationFailed(RequestError):
    """The engine could not make this picture; other requests go on."""

    code = "generation_failed"


class ScheduleFailed(GenerationFailed):
    """The checkpoint's scheduler refuses these settings."""

    code = "schedule_failed"


class EncodeFailed(GenerationFailed):
    """The prompt could not be encoded."""

    code = "encode_failed"


class StepFailed(GenerationFailed):
    """A denoising step raised."""

    code = "step_failed"


class DecodeFailed(GenerationFailed):
    """The latents could not be turned into a picture."""

    code = "decode_failed"


class NumericalError(GenerationFailed):
    """The latents became infinite or not a number."""

    code = "numerical_error"


class EngineCrash(GenerationFailed):
    """The engine process died again and again with this request aboard."""

    code = "engine_crash"


class StorageFailed(GenerationFailed):
    """The disk is full or fails: a job or its pictures can't be stored, or can't be read."""

    status = 503
    code = "storage_failed"


class Unsupported(RequestError):
    """The server, as it was started, doesn't do that."""

    status = 501
    type = "invalid_request_error"
    code = "unsupported"


class Unavailable(RequestError):
    """The server is starting, restarting or shutting down."""

    status = 503
    code = "unavailable"


def _leaves(root: type[RequestError]) -> list[type[RequestError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _leaves(child))]


REQUEST_ERRORS: dict[str, type[RequestError]] = {
    error.code: error for error in _leaves(RequestError)
}
"""Every request error by its code."""
