"""How lines look, and that nobody waits for whoever reads them."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest

from chairlift.logs import MAX_LINES, JsonFormatter, LineWriter, LogFormat, TextFormatter, log_lines
from tests.running import PATIENCE_SECONDS

NOW = 1795226821.5
"""2026-11-21 02:07:01.5 UTC."""


def a_record(message: str = "hello", **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("lift.cabin", logging.WARNING, "", 0, message, None, None)
    record.created = NOW
    record.fields = fields
    return record


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, int]]:
    """An end to read from, and the descriptor of the other one."""
    read, write = os.pipe()
    with open(read, "rb") as reader:
        yield reader, write


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_text_line_has_the_fields_that_have_a_value() -> None:
    line = TextFormatter().format(a_record(steps=20, code=None, path="/v1/jobs", seconds=0.25))
    assert line == (
        "2026-11-21T02:07:01.500Z WARNING lift.cabin: hello steps=20 path=/v1/jobs seconds=0.25"
    )


def test_a_message_that_ends_its_line_itself_does_not_end_it_before_the_fields() -> None:
    record = a_record("it has failed\n", request_id="7")
    assert TextFormatter().format(record).endswith("it has failed request_id=7")
    assert json.loads(JsonFormatter().format(record))["message"] == "it has failed"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a b", "'a b'"),
        ("a=1 b=2", "'a=1 b=2'"),
        ("", "''"),
        ("one\ntwo", r"'one\ntwo'"),
        ("\x1b[31m\u2028\x9b", r"'\x1b[31m\u2028\x9b'"),
        ("日本", "'日本'"),
    ],
)
def test_no_value_begins_a_line_or_a_field_of_its_own(value: str, shown: str) -> None:
    assert TextFormatter().format(a_record(value=value)).endswith(f" value={shown}")


def test_a_json_line_has_all_fields() -> None:
    line = JsonFormatter().format(a_record("one\ntwo\u2028", steps=20, code=None))
    assert line.isascii()
    assert line.splitlines() == [line]
    assert json.loads(line) == {
        "time": "2026-11-21T02:07:01.500Z",
        "level": "WARNING",
        "logger": "lift.cabin",
        "message": "one\ntwo\u2028",
        "steps": 20,
        "code": None,
    }


def test_an_exception_is_a_part_of_its_json_line() -> None:
    try:
        raise ValueError("too steep")
    except ValueError:
        record = a_record()
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: too steep")


def test_lines_come_in_order_and_all_before_the_end(pipe: tuple[BinaryIO, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter("json", descriptor)
    for number in range(100):
        writer.handle(a_record(number=number))
    writer.close()
    writer.close()
    os.close(descriptor)
    assert [json.loads(line)["number"] for line in reader] == list(range(100))


def test_nobody_waits_for_a_reader_who_reads_nothing(
    pipe: tuple[BinaryIO, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chairlift.logs.CLOSE_SECONDS", PATIENCE_SECONDS)
    reader, descriptor = pipe
    writer = LineWriter("json", descriptor)
    many = 2 * MAX_LINES + 5_000
    for number in range(many):  # more than wait, are being written, and are in the pipe
        writer.handle(a_record(number=number))
    in_background(lambda: (writer.close(), os.close(descriptor)))
    lines = [json.loads(line) for line in reader]
    told = [line["message"] for line in lines if "number" not in line]
    written = [line["number"] for line in lines if "number" in line]
    assert written == sorted(set(written))
    assert sum(int(message.partition(" lines were dropped")[0]) for message in told) == (
        many - len(written)
    )
    assert told[-1].endswith(" lines were dropped: standard error takes none")


def test_a_reader_who_has_gone_is_no_error(pipe: tuple[BinaryIO, int]) -> None:
    reader, descriptor = pipe
    reader.close()
    writer = LineWriter("text", descriptor)
    writer.handle(a_record())
    writer.close()
    os.close(descriptor)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_meanwhile_all_loggers_write_the_same_lines(
    log_format: LogFormat, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers = list(root.handlers)
    with log_lines(log_format):
        logging.getLogger("chairlift.cabin").info("one")
        logging.getLogger("somebody").warning("two")
        logging.getLogger("somebody").info("nothing for operators")
    logging.getLogger("chairlift.cabin").info("after")
    assert root.handlers == handlers
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    if log_format == "json":
        assert [json.loads(line)["message"] for line in lines] == ["one", "two"]
    else:
        assert [line.partition(" ")[2] for line in lines] == [
            "INFO chairlift.cabin: one",
            "WARNING somebody: two",
        ]
