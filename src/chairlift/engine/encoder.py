"""The encode stage: every prompt goes through the text encoders once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from chairlift.models.adapter import Adapter, Conditioning
from chairlift.request import Prompt

MAX_ENTRIES = 1000
"""The most conditionings that are kept, however small they are: the prompts and the objects
themselves aren't in their bytes."""


class Encoder:
    """A cache of conditionings in front of an adapter's text encoders.

    Args:
        adapter: The model.
        max_bytes: The cache's bound; the least recently used entries go first.
    """

    def __init__(self, adapter: Adapter, max_bytes: int = 256 * 2**20) -> None:
        self._adapter = adapter
        self._max_bytes = max_bytes
        self._cache: OrderedDict[Prompt, Conditioning] = OrderedDict()
        self.cached_bytes = 0
        self.largest_bytes = 0
        """Of any conditioning so far."""

    def encode(self, prompts: Iterable[Prompt]) -> dict[Prompt, Conditioning]:
        """The conditioning of each prompt; those that aren't cached are encoded together, each
        once.
        """
        wanted = list(dict.fromkeys(prompts))
        missing = [prompt for prompt in wanted if prompt not in self._cache]
        fresh = dict(zip(missing, self._adapter.encode(missing), strict=True)) if missing else {}
        found = {prompt: fresh.get(prompt) or self._cache[prompt] for prompt in wanted}
        for prompt, conditioning in found.items():
            self._remember(prompt, conditioning)
        return found

    def _remember(self, prompt: Prompt, conditioning: Conditioning) -> None:
        if prompt not in self._cache:
            self.cached_bytes += conditioning.nbytes
            self.largest_bytes = max(self.largest_bytes, conditioning.nbytes)
            self._cache[prompt] = conditioning
        self._cache.move_to_end(prompt)
        while self.cached_bytes > self._max_bytes or len(self._cache) > MAX_ENTRIES:
            _, dropped = self._cache.popitem(last=False)
            self.cached_bytes -= dropped.nbytes
