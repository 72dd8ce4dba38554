"""What the pictures show: one prompt for each number, each of them different."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

from chairlift.errors import ConfigurationError

Prompts = Callable[[int], str]
"""The prompt of a number from 0 on. Numbers past those of the plan are for warm-ups."""

OBJECTS = ("cabin", "tree", "boat", "tent", "lighthouse")
COLOURS = ("red", "yellow", "blue", "white", "purple")
PLACES = ("on the left", "in the middle", "on the right")
SKIES = ("by day", "at night", "at sunset")
IN_THE_SKY = ("a sun", "a moon", "no sun or moon")
MOUNTAINS = ("snowy mountains", "green hills", "no mountains")


def draw_prompts(seed: int) -> Prompts:
    """Sentences that the bundled model understands, in an order of the seed's, none twice."""
    attributes = (COLOURS, OBJECTS, PLACES, SKIES, IN_THE_SKY, MOUNTAINS)
    sentences = [
        f"a {colour} {thing} {place} {sky}, {in_the_sky}, {mountains}"
        for colour, thing, place, sky, in_the_sky, mountains in itertools.product(*attributes)
    ]
    random.Random(seed).shuffle(sentences)

    def prompt(number: int) -> str:
        again, place = divmod(number, len(sentences))
        # A prompt that was seen before would come from the server's cache of encoded texts.
        return f"{sentences[place]}, no. {again + 1}" if again else sentences[place]

    return prompt


def read_prompts(path: Path) -> Prompts:
    """The lines of a file, in order and again from the first; empty lines are passed over.

    Raises:
        ConfigurationError: The file can't be read, or has no prompts.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Some editors begin with a mark.
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise ConfigurationError(f"the prompts {path} can't be read: {reason}") from None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise ConfigurationError(f"the file {path} has no prompts")
    return lambda number: lines[number % len(lines)]
