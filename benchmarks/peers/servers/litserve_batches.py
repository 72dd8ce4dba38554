"""The stock pipeline with LitServe's batching.

Annotations are not postponed here: LitServe reads them.
"""

from collections.abc import Iterable
from typing import Any

import litserve  # type: ignore[import-not-found]  # It is in the peers' environment only.
from PIL import Image

from benchmarks.peers.api import PATH, Body, answer
from benchmarks.peers.settings import Place, Settings, parse_arguments
from benchmarks.peers.stock import draw, load_pipeline


class Pictures(litserve.LitAPI):  # type: ignore[misc]
    """LitServe makes batches of what comes, and calls :meth:`predict` in a process of its own.

    Args:
        place: Where it is served.
        settings: With the batch's size and timeout.
    """

    def __init__(self, place: Place, settings: Settings) -> None:
        super().__init__(
            api_path=PATH,
            max_batch_size=settings.max_batch_size,
            batch_timeout=settings.batch_timeout,
        )
        self._place, self._settings = place, settings

    def setup(self, device: str) -> None:
        self._pipeline = load_pipeline(self._place.folder, self._settings)

    def decode_request(self, request: dict[str, Any]) -> Body:
        return Body(**request)

    def batch(self, inputs: list[Body]) -> list[Body]:
        return list(inputs)

    def predict(self, inputs: list[Body] | Body) -> list[Image.Image]:
        return draw(self._pipeline, inputs if isinstance(inputs, list) else [inputs])

    def unbatch(self, output: list[Image.Image]) -> Iterable[Image.Image]:
        return output

    def encode_response(self, output: Image.Image | list[Image.Image]) -> dict[str, Any]:
        return answer(output[0] if isinstance(output, list) else output)


def main() -> None:
    place, settings = parse_arguments()
    server = litserve.LitServer(
        Pictures(place, settings),
        accelerator="cpu",
        workers_per_device=settings.processes,
        timeout=False,
        enable_shutdown_api=False,
    )
    server.run(
        host="127.0.0.1",
        port=place.port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
