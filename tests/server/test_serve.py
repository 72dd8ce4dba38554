"""The socket that the server listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from chairlift.errors import ConfigurationError
from chairlift.server.serve import bind


def test_answers_are_not_held_back_by_nagles_algorithm() -> None:
    async def accepted_connection_delays() -> bool:
        accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with bind("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(accept, sock=listening):
                _, writer = await asyncio.open_connection(*listening.getsockname())
                delays = await accepted
                writer.close()
                await writer.wait_closed()
        return delays

    assert not asyncio.run(accepted_connection_delays())


def test_a_port_is_taken_as_soon_as_it_is_bound() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1 port {port}: .*in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port"),
    [("127.0.0.1", 65536), ("127.0.0.1", -1), ("no.such.invalid", 0), ("x" * 99, 0)],
)
def test_an_address_that_is_none_is_refused(host: str, port: int) -> None:
    with pytest.raises(ConfigurationError, match=f"can't listen on {host} port {port}: "):
        bind(host, port)
