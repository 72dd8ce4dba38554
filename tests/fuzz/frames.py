"""Messages of every kind, as hypothesis makes them up."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from chairlift.engine.messages import FromEngine, ToEngine, encode

_PLAIN: dict[Any, SearchStrategy[Any]] = {
    str: strategies.text(max_size=20),
    bytes: strategies.binary(max_size=20),
    int: strategies.integers(-(2**63), 2**64 - 1),
    float: strategies.floats(allow_nan=False),  # which isn't equal to itself
    bool: strategies.booleans(),
    type(None): strategies.none(),
}


def values(kind: Any) -> SearchStrategy[Any]:
    """Values of a type, whether they make sense or not."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin in (Union, UnionType):
        return strategies.one_of([values(argument) for argument in arguments])
    if origin is Literal:
        return strategies.sampled_from(arguments)
    if origin is tuple and arguments[-1] is not ...:
        return strategies.tuples(*map(values, arguments))
    if origin in (list, tuple):
        return strategies.lists(values(arguments[0]), max_size=3).map(origin)
    if origin is not None:
        return strategies.dictionaries(*map(values, arguments), max_size=3)
    return strategies.deferred(lambda: strategies.builds(kind, **_fields(kind)))


def _fields(kind: Any) -> dict[str, SearchStrategy[Any]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.name: values(field.type) for field in msgspec.structs.fields(kind)}
    hints = get_type_hints(kind)
    names = (
        [field.name for field in dataclasses.fields(kind)]
        if dataclasses.is_dataclass(kind)
        else kind._fields
    )
    return {name: values(hints[name]) for name in names}


TO_ENGINE = values(ToEngine)
FROM_ENGINE = values(FromEngine)
FRAMES = strategies.one_of(TO_ENGINE, FROM_ENGINE).map(encode)
"""What is really sent."""
