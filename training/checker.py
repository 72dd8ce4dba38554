"""Reads the attributes of a postcard off its pixels.

    python -m training.checker            # how well it reads drawn originals

Plain colour and shape rules, no network: which colours stand where, and which object's outline
fits best. It expects 128x128 pictures.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.postcards import (
    ATTRIBUTES,
    DAYLIGHT,
    HILL,
    HORIZON,
    KINDS,
    MOON,
    OBJECT_RGB,
    POSITION_X,
    ROCK,
    SKY_HORIZON,
    SKY_TOP,
    SNOW,
    SUN,
    colour_mask,
    draw,
    random_postcard,
)

SIDE = 128
UNREADABLE = "?"
COLOUR_DISTANCE = 70.0
CELESTIAL_DISTANCE = 55.0
OUTLINE_ROWS = slice(round(0.53 * SIDE), round(0.96 * SIDE))
"""Where outlines are compared: below every snow cap."""

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


def read(picture: Image.Image) -> dict[str, str]:
    """The attributes that the picture shows; ``"?"`` where no object is found."""
    if picture.size != (SIDE, SIDE):
        raise ValueError(f"picture is {picture.size}, the checker reads {(SIDE, SIDE)}")
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    sky = _nearest(pixels[: round(0.03 * SIDE)].mean((0, 1)), SKY_TOP)
    seen = {"sky": sky, "celestial": _celestial(pixels), "mountains": _mountains(pixels, sky)}
    return seen | _object(pixels)


def _distance(pixels: Pixels, colour: object) -> Pixels:
    return np.linalg.norm(pixels - np.asarray(colour, dtype=np.float32), axis=-1)


def _nearest(colour: Pixels, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(_distance(colour, palette[name])))


def _celestial(pixels: Pixels) -> str:
    top = pixels[: round(0.33 * SIDE)]
    sun = (_distance(top, SUN) < CELESTIAL_DISTANCE).sum() / SIDE**2
    moon = (_distance(top, MOON) < CELESTIAL_DISTANCE).sum() / SIDE**2
    if max(sun, moon) < 0.003:
        return "none"
    return "sun" if sun > moon else "moon"


def _mountains(pixels: Pixels, sky: str) -> str:
    """What most of the band over the horizon is made of, sky, rock or hill."""
    rows = range(round(0.50 * SIDE), round(0.64 * SIDE))
    t = np.array([row / (HORIZON * SIDE) for row in rows], dtype=np.float32)[:, None, None]
    band = pixels[rows.start : rows.stop]
    sky_rgb = np.asarray(SKY_TOP[sky]) * (1 - t) + np.asarray(SKY_HORIZON[sky]) * t
    light = DAYLIGHT[sky]
    distances = {
        "none": _distance(band, sky_rgb),
        "snowy": np.minimum.reduce(
            [_distance(band, np.asarray(ROCK) * light * shade) for shade in (1.0, 0.88)]
            + [_distance(band, np.asarray(SNOW) * (0.5 + 0.5 * light))]
        ),
        "green": np.minimum.reduce(
            [_distance(band, np.asarray(HILL) * light * shade) for shade in (1.0, 0.88)]
        ),
    }
    names = list(distances)
    stacked = np.stack(list(distances.values()))
    known = stacked.min(0) < 50
    counts = np.bincount(stacked.argmin(0)[known], minlength=len(names))
    return names[int(counts.argmax())]


def _object(pixels: Pixels) -> dict[str, str]:
    distances = np.stack([_distance(pixels, rgb) for rgb in OBJECT_RGB.values()])
    nearest = np.where(distances.min(0) < COLOUR_DISTANCE, distances.argmin(0), -1)
    ground = nearest[round(0.64 * SIDE) :]
    counts = [int((ground == index).sum()) for index in range(len(OBJECT_RGB))]
    if max(counts) < 0.004 * SIDE**2:
        return {"kind": UNREADABLE, "colour": UNREADABLE, "position": UNREADABLE}
    best = int(np.argmax(counts))
    x = float(np.nonzero(ground == best)[1].mean()) / SIDE
    return {
        "kind": _kind(nearest == best, x),
        "colour": list(OBJECT_RGB)[best],
        "position": min(POSITION_X, key=lambda name: abs(POSITION_X[name] - x)),
    }


@cache
def _outlines() -> list[tuple[str, Mask]]:
    return [
        (kind, np.asarray(colour_mask(kind, 0.5, y, scale, SIDE, SIDE)) > 127)
        for kind in KINDS
        for y in (0.85, 0.87, 0.89, 0.91, 0.93)
        for scale in (0.92, 1.0, 1.08)
    ]


def _kind(mask: Mask, x: float) -> str:
    """The kind whose outline has the greatest overlap (intersection over union)."""
    shift = round((x - 0.5) * SIDE)
    best, winner = -1.0, UNREADABLE
    centred = {dx: np.roll(mask, -shift - dx, axis=1)[OUTLINE_ROWS] for dx in range(-8, 9, 2)}
    for kind, outline in _outlines():
        shape = outline[OUTLINE_ROWS]
        for seen in centred.values():
            overlap = (seen & shape).sum() / max(1, (seen | shape).sum())
            if overlap > best:
                best, winner = float(overlap), kind
    return winner


def share_right(seen: list[dict[str, str]], meant: list[dict[str, str]]) -> dict[str, float]:
    """For each attribute the share that agrees, and under ``"all"`` their mean."""
    shares = {
        name: sum(a[name] == b[name] for a, b in zip(seen, meant, strict=True)) / len(meant)
        for name in ATTRIBUTES
    }
    return shares | {"all": sum(shares.values()) / len(shares)}


def main(count: int = 1000) -> None:
    rng = random.Random(7)
    cards = [random_postcard(rng) for _ in range(count)]
    shares = share_right(
        [read(draw(card)) for card in cards], [card.attributes() for card in cards]
    )
    print(" ".join(f"{name} {share:.4f}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
