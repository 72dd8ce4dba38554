"""AUTOMATIC1111's text of a picture's settings, which the community's tools read: the prompt, the
negative prompt, and a last line of ``Key: value`` pairs.

The text above the last line can't hold every prompt: spaces at the ends of lines are lost, and a
line of the prompt may look like the negative one. What is written is therefore read back at once,
and where the prompts come out different, the pairs ``Prompt`` and ``Negative prompt`` hold them
too. AUTOMATIC1111's own reader lets such pairs override the text above them.

Knows the syntax, not what the keys mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from chairlift.errors import InvalidRequest

MAX_CHARACTERS = 1_000_000
"""A longer text is not parsed; the longest of our own has less than half as many."""

_NEGATIVE = "Negative prompt:"
_PAIR = re.compile(
    r"\s*(?P<key>\w[\w \-/]+):\s*"
    r'(?P<value>"[^"\\]*(?:\\.[^"\\]*)*"(?=\s*(?:,|$))|[^,]*)\s*(?:,|$)'
)


@dataclass(frozen=True, slots=True)
class Infotext:
    """The parts of the text."""

    prompt: str
    negative_prompt: str | None
    """None where the text has no such line."""
    pairs: Mapping[str, str]
    """The last line, in order. It has ``Steps``, by which it is known."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a text of ours or of another tool.

        Raises:
            InvalidRequest: It is longer than :data:`MAX_CHARACTERS`, or has no line of pairs.
        """
        if len(text) > MAX_CHARACTERS:
            raise InvalidRequest(
                f"its text has {len(text)} characters; at most {MAX_CHARACTERS} are read"
            )
        above, _, line = text.strip().rpartition("\n")
        pairs = _parse_pairs(line)
        if "Steps" not in pairs:
            raise InvalidRequest("its text has no line of settings (Steps: 20, …)")
        if "Prompt" in pairs:
            return cls(pairs.pop("Prompt"), pairs.pop("Negative prompt", None), pairs)
        return cls(*_parse_prompts(above), pairs)

    def __str__(self) -> str:
        """The text. :meth:`parse` makes an equal object of it."""
        prompts = self.prompt, self.negative_prompt
        text = self.prompt
        if self.negative_prompt is not None:
            text += f"\n{_NEGATIVE} {self.negative_prompt}"
        text = text.replace("\0", "")  # It would end a text chunk of PNG.
        exact: dict[str, str] = {}
        if _parse_prompts(text) != prompts:
            exact = {
                key: value
                for key, value in zip(("Prompt", "Negative prompt"), prompts, strict=True)
                if value is not None
            }
        pairs = {**self.pairs, **exact}
        return text + "\n" + ", ".join(f"{key}: {_quote(pairs[key])}" for key in pairs)


def _parse_prompts(text: str) -> tuple[str, str | None]:
    """The prompt and the negative one, as AUTOMATIC1111 reads them: line by line."""
    prompt: list[str] = []
    negative: list[str] | None = None
    for line in map(str.strip, text.split("\n")):
        if line.startswith(_NEGATIVE):
            negative = negative or []
            line = line.removeprefix(_NEGATIVE).strip()
        (prompt if negative is None else negative).append(line)
    return _join(prompt), None if negative is None else _join(negative)


def _join(lines: list[str]) -> str:
    return "\n".join(lines).lstrip("\n")


def _parse_pairs(line: str) -> dict[str, str]:
    """The pairs of a line; of equal keys the last. What is no pair is left out up to the next
    comma, so that no text, however made, takes more than a few passes.
    """
    pairs: dict[str, str] = {}
    position = 0
    while position < len(line):
        if match := _PAIR.match(line, position):
            pairs[match["key"]] = _unquote(match["value"].strip())
            position = match.end()
        else:
            position = line.find(",", position) + 1 or len(line)
    return pairs


def _quote(value: str) -> str:
    """The value, as a JSON string where it isn't plain. In that, commas, colons and quotes are
    escaped too, for the readers that split at each of them.
    """
    if value and value == value.strip() and not re.search(r'[,:\n"]', value):
        return value
    text = json.dumps(value, ensure_ascii=False)[1:-1].replace(r"\"", r"\u0022")
    return '"' + text.replace(",", r"\u002c").replace(":", r"\u003a") + '"'


def _unquote(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:  # Another tool's, which only looks like JSON.
        return value
