"""``chairlift generate --like``: a picture as a source of settings.

The file may be anybody's. It is bounded before it is read, its pixels are not decoded, and nothing
that it names is loaded: neither its model nor its LoRAs.
"""

from __future__ import annotations

import shlex
import textwrap
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from chairlift.card import ModelCard
from chairlift.errors import ConfigurationError, InvalidRequest
from chairlift.metadata import PictureSettings, extract
from chairlift.request import IMAGE_FORMATS

MAX_FILE_BYTES = 256 * 2**20
MAX_NAMES = 200
"""Characters of names out of a picture that are repeated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LikePicture:
    """A picture that is to be made again."""

    path: Path
    output_format: str
    settings: PictureSettings

    @classmethod
    def read(cls, path: Path) -> LikePicture:
        """Read what a PNG, JPEG or WebP says of itself.

        Raises:
            ConfigurationError: The file is missing, too large or no such picture, or has no
                settings, or wrong ones.
        """
        text, output_format = _read_text(path)
        if text is None:
            raise ConfigurationError(f"{path} has no settings in it")
        try:
            settings = PictureSettings.parse(text)
        except InvalidRequest as error:
            raise ConfigurationError(f"{path}: {error}") from None
        return cls(path=path, output_format=output_format, settings=settings)

    def require_loras(self) -> None:
        """Refuse to go on without the LoRAs that the picture was made with.

        Raises:
            ConfigurationError: It names some; the message has the options that name their files.
        """
        options = [f"--lora {shlex.quote(f'{name}={s!r}')}" for name, s in self.settings.loras]
        if options:
            raise ConfigurationError(
                f"{self.path} was made with LoRAs, and a picture's files are not looked for; "
                f"say where they are: {_shorten(' '.join(options))}"
            )

    def lora_names(self, paths: Iterable[str]) -> dict[str, str]:
        """How LoRAs are called, by their paths: as in the picture, where that is the name of the
        file, wherever it lies. So a picture whose LoRAs were somewhere else, or were a server's,
        is made again with the same text in it.
        """
        known = {_file_name(name): name for name, _ in self.settings.loras}
        return {path: known.pop(_file_name(path), path) for path in paths}

    def arguments(self, card: ModelCard) -> dict[str, Any]:
        """What :func:`chairlift.validation.create_request` makes the picture from."""
        return {"output_format": self.output_format} | self.settings.arguments(card.guidance)

    def warnings(self, card: ModelCard) -> list[str]:
        """Why this model's picture will be another one, a sentence each."""
        sentences = []
        if self.settings.model not in (None, card.id):
            made_by = _shorten(repr(self.settings.model))
            sentences.append(f"{self.path} was made by {made_by}; this is {card.id!r}")
        unused = list(self.settings.unused)
        if self.settings.distilled_cfg_scale is not None and not card.guidance.embedded:
            unused.append("Distilled CFG Scale")
        if unused:
            sentences.append(f"settings that mean nothing here: {_shorten(', '.join(unused))}")
        return sentences


def _read_text(path: Path) -> tuple[str | None, str]:
    """The text in a picture, and its format."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are looked through"
            )
        with warnings.catch_warnings():
            # A broken picture has no settings, or wrong ones; that is said.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=IMAGE_FORMATS) as picture:
                return extract(picture), str(picture.format).lower()
    except UnidentifiedImageError:
        raise ConfigurationError(f"{path} is not a PNG, JPEG or WebP picture") from None
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror or error}") from None
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ConfigurationError(f"{path} can't be read: {error}") from None


def _file_name(path: str) -> str:
    return Path(path).name.removesuffix(".safetensors")


def _shorten(names: str) -> str:
    return textwrap.shorten(names, MAX_NAMES, placeholder=" …")
