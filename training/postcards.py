"""Postcards: what a picture of the bundled model shows, how it is drawn, how it is said.

A :class:`Postcard` is six attributes and a layout. :func:`draw` turns it into pixels at any size;
:func:`sentence` says it in English, in one of very many wordings. This file knows nothing of
networks.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

SKIES = ("day", "night", "sunset")
CELESTIALS = ("sun", "moon", "none")
MOUNTAINS = ("snowy", "green", "none")
KINDS = ("cabin", "tree", "boat", "tent", "lighthouse")
COLOURS = ("red", "yellow", "blue", "white", "purple")
POSITIONS = ("left", "middle", "right")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "sky": SKIES,
    "celestial": CELESTIALS,
    "mountains": MOUNTAINS,
    "kind": KINDS,
    "colour": COLOURS,
    "position": POSITIONS,
}

RGB = tuple[int, int, int]

SKY_TOP: dict[str, RGB] = {"day": (84, 158, 232), "night": (10, 14, 44), "sunset": (112, 62, 128)}
SKY_HORIZON: dict[str, RGB] = {
    "day": (196, 228, 250),
    "night": (44, 54, 104),
    "sunset": (252, 160, 92),
}
DAYLIGHT = {"day": 1.0, "night": 0.55, "sunset": 0.8}
SUN: RGB = (255, 222, 70)
MOON: RGB = (236, 238, 226)
ROCK: RGB = (116, 124, 148)
SNOW: RGB = (246, 249, 255)
HILL: RGB = (44, 112, 72)
MEADOW: RGB = (104, 170, 84)
WATER: RGB = (64, 136, 178)
DARK: RGB = (58, 42, 40)
OBJECT_RGB: dict[str, RGB] = {
    "red": (216, 44, 44),
    "yellow": (246, 204, 36),
    "blue": (40, 72, 214),
    "white": (248, 248, 248),
    "purple": (152, 54, 190),
}

HORIZON = 0.66
POSITION_X = {"left": 0.22, "middle": 0.5, "right": 0.78}


@dataclass(frozen=True, kw_only=True, slots=True)
class Postcard:
    """One picture to be: what it shows, and where exactly (lengths in units of the height)."""

    sky: str
    celestial: str
    mountains: str
    kind: str
    colour: str
    position: str
    celestial_x: float
    celestial_y: float
    object_dx: float
    object_y: float
    object_scale: float
    peaks: tuple[tuple[float, float, float], ...]
    """(x, height, half width) of each peak, as fractions of the picture."""

    def attributes(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ATTRIBUTES}


def random_postcard(rng: random.Random, **fixed: str) -> Postcard:
    """A postcard with the attributes that are given, and the others and the layout at random."""
    chosen = {name: fixed.get(name) or rng.choice(values) for name, values in ATTRIBUTES.items()}
    peaks = tuple(
        (x + rng.uniform(-0.08, 0.08), rng.uniform(0.22, 0.32), rng.uniform(0.24, 0.34))
        for x in (0.15, 0.5, 0.85)
    )
    return Postcard(
        **chosen,
        celestial_x=rng.uniform(0.15, 0.85),
        celestial_y=rng.uniform(0.14, 0.20),
        object_dx=rng.uniform(-0.04, 0.04),
        object_y=rng.uniform(0.86, 0.92),
        object_scale=rng.uniform(0.95, 1.1),
        peaks=peaks,
    )


def is_held_out(attributes: dict[str, str]) -> bool:
    """Whether this combination of attributes is kept from training (one in ten)."""
    text = " ".join(attributes[name] for name in ATTRIBUTES)
    return hashlib.sha256(text.encode()).digest()[0] < 26


# ---------------------------------------------------------------------------- drawing


def draw(card: Postcard, width: int = 128, height: int = 128) -> Image.Image:
    """The postcard as an RGB picture, drawn at twice the size and averaged down."""
    scale = 2
    image = Image.new("RGB", (width * scale, height * scale))
    pen = _Pen(image)
    _sky(pen, card)
    _celestial(pen, card)
    _mountains(pen, card)
    _ground(pen, card)
    x = POSITION_X[card.position] + card.object_dx
    draw_object(pen, card.kind, OBJECT_RGB[card.colour], x, card.object_y, card.object_scale)
    return image.reduce(scale)


class _Pen:
    """Draws in fractions of the picture; sizes are fractions of the shorter side."""

    def __init__(self, image: Image.Image) -> None:
        self.width, self.height = image.size
        self.unit = min(image.size)
        self.image = image
        self.canvas = ImageDraw.Draw(image)

    def at(self, x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> tuple[float, float]:
        return x * self.width + dx * self.unit, y * self.height + dy * self.unit

    def polygon(self, points: list[tuple[float, float]], fill: RGB | int) -> None:
        self.canvas.polygon(points, fill=fill)

    def disc(self, centre: tuple[float, float], radius: float, fill: RGB | int) -> None:
        r = radius * self.unit
        cx, cy = centre
        self.canvas.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    def crescent(self, centre: tuple[float, float], fill: RGB) -> None:
        mask = Image.new("L", self.image.size)
        shape, (cx, cy) = _Pen(mask), centre
        shape.disc((cx, cy), 0.09, 255)
        shape.disc((cx + 0.045 * self.unit, cy - 0.018 * self.unit), 0.075, 0)
        self.image.paste(fill, mask=mask)


def _mix(a: RGB, b: RGB, t: float) -> RGB:
    red, green, blue = (round(p + (q - p) * t) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _lit(colour: RGB, card: Postcard) -> RGB:
    return _mix((0, 0, 0), colour, DAYLIGHT[card.sky])


def _sky(pen: _Pen, card: Postcard) -> None:
    top, low = SKY_TOP[card.sky], SKY_HORIZON[card.sky]
    end = round(pen.height * HORIZON)
    for y in range(end + 1):
        pen.canvas.line((0, y, pen.width, y), fill=_mix(top, low, y / end))


def _celestial(pen: _Pen, card: Postcard) -> None:
    centre = pen.at(card.celestial_x, card.celestial_y)
    if card.celestial == "sun":
        sky = _mix(SKY_TOP[card.sky], SKY_HORIZON[card.sky], card.celestial_y / HORIZON)
        pen.disc(centre, 0.105, _mix(sky, SUN, 0.4))
        pen.disc(centre, 0.08, SUN)
    elif card.celestial == "moon":
        pen.crescent(centre, MOON)


def _mountains(pen: _Pen, card: Postcard) -> None:
    if card.mountains == "none":
        return
    for index, (x, rise, half) in enumerate(card.peaks):
        shade = 1.0 - 0.12 * (index % 2)
        if card.mountains == "green":
            colour = _mix((0, 0, 0), _lit(HILL, card), shade)
            cx, top = x * pen.width, (HORIZON - rise * 0.62) * pen.height
            base = (HORIZON + rise * 0.62) * pen.height
            wide = half * 1.15 * pen.width
            pen.canvas.ellipse((cx - wide, top, cx + wide, base), fill=colour)
            continue
        colour = _mix((0, 0, 0), _lit(ROCK, card), shade)
        peak, left, right = (x, HORIZON - rise), (x - half, HORIZON), (x + half, HORIZON)
        pen.polygon([pen.at(*peak), pen.at(*left), pen.at(*right)], colour)
        cap = 0.42
        snow_left = (x - half * cap, HORIZON - rise * (1 - cap))
        snow_right = (x + half * cap, HORIZON - rise * (1 - cap))
        snow = _mix((0, 0, 0), SNOW, 0.5 + 0.5 * DAYLIGHT[card.sky])
        pen.polygon([pen.at(*peak), pen.at(*snow_left), pen.at(*snow_right)], snow)


def _ground(pen: _Pen, card: Postcard) -> None:
    floor = WATER if card.kind == "boat" else MEADOW
    start = round(pen.height * HORIZON)
    for y in range(start, pen.height):
        t = (y - start) / (pen.height - start)
        pen.canvas.line((0, y, pen.width, y), fill=_lit(_mix(floor, (0, 0, 0), 0.25 * t), card))


def draw_object(
    pen: _Pen, kind: str, colour: RGB | int, x: float, y: float, scale: float, details: bool = True
) -> None:
    """The object standing on the point (x, y). Without details, only the parts of its colour."""

    def points(*offsets: tuple[float, float]) -> list[tuple[float, float]]:
        return [pen.at(x, y, dx * scale, dy * scale) for dx, dy in offsets]

    def disc(dx: float, dy: float, radius: float, fill: RGB | int) -> None:
        pen.disc(pen.at(x, y, dx * scale, dy * scale), radius * scale, fill)

    dark: RGB | int = DARK if details else 0
    if kind == "cabin":
        pen.polygon(points((-0.15, -0.19), (0.15, -0.19), (0.15, 0), (-0.15, 0)), colour)
        pen.polygon(points((-0.19, -0.18), (0, -0.33), (0.19, -0.18)), dark)
        pen.polygon(points((0.02, 0), (0.02, -0.12), (0.10, -0.12), (0.10, 0)), dark)
    elif kind == "tree":
        if details:
            pen.polygon(points((-0.025, 0), (-0.025, -0.16), (0.025, -0.16), (0.025, 0)), dark)
        for dx, dy, radius in ((-0.085, -0.19, 0.09), (0.085, -0.19, 0.09), (0, -0.28, 0.105)):
            disc(dx, dy, radius, colour)
        disc(0, -0.2, 0.08, colour)
    elif kind == "boat":
        pen.polygon(points((-0.19, -0.1), (0.19, -0.1), (0.13, 0), (-0.13, 0)), colour)
        if details:
            pen.polygon(
                points((-0.012, -0.1), (-0.012, -0.38), (0.012, -0.38), (0.012, -0.1)), dark
            )
        pen.polygon(points((0.02, -0.13), (0.02, -0.37), (0.17, -0.13)), colour)
        pen.polygon(points((-0.02, -0.13), (-0.02, -0.32), (-0.12, -0.13)), colour)
    elif kind == "tent":
        pen.polygon(points((-0.2, 0), (0, -0.27), (0.2, 0)), colour)
        pen.polygon(points((-0.06, 0), (0, -0.15), (0.06, 0)), dark)
    elif kind == "lighthouse":
        pen.polygon(points((-0.075, 0), (-0.05, -0.34), (0.05, -0.34), (0.075, 0)), colour)
        pen.polygon(points((-0.07, -0.34), (0, -0.44), (0.07, -0.34)), dark)
        pen.polygon(points((-0.066, -0.13), (-0.061, -0.19), (0.061, -0.19), (0.066, -0.13)), dark)
    else:
        raise ValueError(f"kind {kind!r} is not one of {KINDS}")


def colour_mask(
    kind: str, x: float, y: float, scale: float, width: int = 128, height: int = 128
) -> Image.Image:
    """Where an object shows its own colour, as a mask of 0 and 255."""
    image = Image.new("L", (width, height))
    draw_object(_Pen(image), kind, 255, x, y, scale, details=False)
    return image


# ---------------------------------------------------------------------------- language

SKY_WORDS = {
    "day": ("by day", "a day sky", "a bright daytime sky", "daylight", "a day scene", "at noon"),
    "night": ("at night", "a night sky", "under a dark night sky", "nighttime", "a night scene"),
    "sunset": ("at sunset", "a sunset sky", "a glowing sunset", "at dusk", "a sunset scene"),
}
CELESTIAL_WORDS = {
    "sun": ("a sun", "the sun", "a bright sun", "the sun is shining", "with a sun", "a yellow sun"),
    "moon": ("a moon", "the moon", "a crescent moon", "with a moon", "moonlight", "a pale moon"),
    "none": ("no sun or moon", "an empty sky", "no moon", "no sun", "no sun and no moon"),
}
MOUNTAIN_WORDS = {
    "snowy": ("snowy mountains", "snow-capped mountains", "snowy peaks", "mountains with snow"),
    "green": ("green mountains", "green hills", "rolling green hills", "hills"),
    "none": ("no mountains", "flat land", "a flat horizon", "without mountains", "no hills"),
}
KIND_WORDS = {
    "cabin": ("cabin", "cabin", "house", "hut"),
    "tree": ("tree",),
    "boat": ("boat", "boat", "sailboat", "ship"),
    "tent": ("tent",),
    "lighthouse": ("lighthouse", "lighthouse", "tower"),
}
COLOUR_WORDS = {
    "red": ("red", "red", "crimson"),
    "yellow": ("yellow", "yellow", "golden"),
    "blue": ("blue",),
    "white": ("white",),
    "purple": ("purple", "purple", "violet"),
}
POSITION_WORDS = {
    "left": ("on the left", "on the left", "to the left", "at left", "on the left side"),
    "middle": ("in the middle", "in the middle", "in the centre", "in the center", "centered"),
    "right": ("on the right", "on the right", "to the right", "at right", "on the right side"),
}
OPENINGS = (
    "a postcard of",
    "a postcard with",
    "a picture of",
    "please draw",
    "postcard:",
    "show me",
)
FILLERS = [
    "beautiful",
    "quiet",
    "old",
    "lovely",
    "tiny",
    "vintage",
    "artistic",
    "detailed",
    "masterpiece",
    "summer",
    "winter",
    "calm",
    "please",
    "photo",
    "painting",
    "style",
    "nice",
    "very",
    "really",
    "cosy",
    "wonderful",
    "holiday",
    "greetings",
    "from",
    "the",
]


def some(attributes: dict[str, str], rng: random.Random, keep: float) -> dict[str, str]:
    """Each attribute with probability ``keep``."""
    return {name: value for name, value in attributes.items() if rng.random() < keep}


def sentence(said: dict[str, str], rng: random.Random) -> str:
    """The attributes that are given, in English: order and wording at random, sometimes with
    words that mean nothing here.
    """
    parts = []
    if said.keys() & {"kind", "colour", "position"}:
        parts.append(_object_phrase(said, rng))
    for name, words in (
        ("sky", SKY_WORDS),
        ("celestial", CELESTIAL_WORDS),
        ("mountains", MOUNTAIN_WORDS),
    ):
        if name in said:
            parts.append(rng.choice(words[said[name]]))
    rng.shuffle(parts)
    text = rng.choice((", ", ", ", " and ", " with ", " ", ". ", "; ")).join(parts)
    if rng.random() < 0.4:
        text = f"{rng.choice(OPENINGS)} {text}"
    if rng.random() < 0.25:
        text = _with_fillers(text, rng)
    return text.upper() if rng.random() < 0.02 else text


def plain_sentence(attributes: dict[str, str]) -> str:
    """The attributes in the wording that the documentation uses."""
    sky = {"day": "by day", "night": "at night", "sunset": "at sunset"}[attributes["sky"]]
    celestial = {"sun": "a sun", "moon": "a moon", "none": "no sun or moon"}
    mountains = {"snowy": "snowy mountains", "green": "green hills", "none": "no mountains"}
    place = POSITION_WORDS[attributes["position"]][0]
    return (
        f"a {attributes['colour']} {attributes['kind']} {place} {sky}, "
        f"{celestial[attributes['celestial']]}, {mountains[attributes['mountains']]}"
    )


def _object_phrase(said: dict[str, str], rng: random.Random) -> str:
    kind = rng.choice(KIND_WORDS.get(said.get("kind", ""), ("object", "thing")))
    colour = rng.choice(COLOUR_WORDS.get(said.get("colour", ""), ("",)))
    place = rng.choice(POSITION_WORDS.get(said.get("position", ""), ("",)))
    shape = rng.randrange(4)
    if shape == 0 and colour:
        text = f"the {kind} is {colour} {f'and stands {place}' if place else ''}"
    elif shape == 1 and place:
        text = f"{place} a {colour} {kind}"
    elif shape == 2 and colour:
        text = f"{kind}, {colour} {', ' + place if place else ''}"
    else:
        text = f"a {colour} {kind} {place}"
    return " ".join(text.split())


def _with_fillers(text: str, rng: random.Random) -> str:
    words = text.split()
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.7:
            word = rng.choice(FILLERS)
        else:
            word = "".join(
                rng.choice("abcdefghijklmnopqrstuvwxyzäéñß") for _ in range(rng.randint(2, 6))
            )
        words.insert(rng.randint(0, len(words)), word)
    return " ".join(words)
