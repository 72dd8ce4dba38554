"""The codec of messages: whatever comes, it is a message or an error of one kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import binary, one_of

from chairlift.engine.messages import decode_from_engine, decode_to_engine, encode
from tests.fuzz.frames import FRAMES, FROM_ENGINE, TO_ENGINE
from tests.fuzz.mutations import mutated, tried

Decode = Callable[[bytes], Any]
BOTH = pytest.mark.parametrize("decode", [decode_to_engine, decode_from_engine])


@tried(200)
@given(message=TO_ENGINE)
def test_what_is_sent_to_the_engine_is_what_it_gets(message: Any) -> None:
    assert decode_to_engine(encode(message)) == message


@tried(200)
@given(message=FROM_ENGINE)
def test_what_the_engine_sends_is_what_the_front_end_gets(message: Any) -> None:
    assert decode_from_engine(encode(message)) == message


@BOTH
@tried(300)
@given(frame=one_of(binary(max_size=200), mutated(FRAMES)))
def test_any_bytes_are_a_message_or_refused(decode: Decode, frame: bytes) -> None:
    try:
        message = decode(frame)
    except msgspec.MsgspecError:
        return
    again = encode(message)
    assert encode(decode(again)) == again


@BOTH
@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\xa4type\xa6Cancel\xaarequest_id\xa2\xff\xfe",  # not UTF-8
        b"\x82\xa4type\xa6Failed\xa1x" + 100_000 * b"\x91",  # a list in a list in a list …
        b"\x82\xa4type\xa6Cancel\xa1x\xdd\xff\xff\xff\xff",  # a list of four thousand million
        b"\x82\xa4type\xa6Failed\xa1x\xc6\xff\xff\xff\xff",  # four gigabytes
        b"\xc1",
        b"",
    ],
    ids=range(6),
)
def test_what_msgspec_stumbles_over_is_refused_like_all_else(decode: Decode, frame: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(frame)
