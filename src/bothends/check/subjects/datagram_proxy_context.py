"""A running case of a suite for proxies of datagrams: several clients, and the upstream that they reach.

The stimuli of `suites/proxies/datagrams.py` are made of these methods.
"""

from __future__ import annotations

from typing import Any

from bothends.check.case import CheckFailed
from bothends.check.subjects.proxy_context import ProxyCaseContext
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.relayed_bytes import first_difference, quote_stream
from bothends.check.subjects.upstream import DatagramUpstream
from bothends.errors import errno_text


class DatagramProxyContext(ProxyCaseContext):
    """A running case of a suite for proxies of datagrams."""

    @property
    def datagram_upstream(self) -> DatagramUpstream:
        """The server behind the proxy."""
        assert isinstance(self._upstream, DatagramUpstream)
        return self._upstream

    async def receive_at_upstream(self, timeout: float) -> tuple[bytes, Any]:
        """Return the next datagram that arrives at the upstream, and its source address.

        Raises:
            TimeoutError: none arrives in time.
        """
        data, source = await self.datagram_upstream.receive(timeout)
        self.transcript.add("upstream", f"receives {quote_stream(data)} from {name_address(source)}")
        return data, source

    def send_from_upstream(self, data: bytes, address: Any) -> None:
        """Send a datagram from the upstream."""
        self.transcript.add("upstream", f"sends {quote_stream(data)} to {name_address(address)}")
        self.datagram_upstream.send(data, address)

    async def pass_up(self, client: RecordedSocket, data: bytes, *, mistake: str = "") -> Any:
        """Send a client's datagram, and receive it at the upstream. Returns: its source address there.

        Raises:
            CheckFailed: another one arrives, or none in time.
        """
        await client.send(data)
        return await self.expect_at_upstream(data, mistake=mistake)

    async def expect_at_upstream(self, sent: bytes, *, mistake: str = "") -> Any:
        """Receive exactly this datagram at the upstream. Returns: its source address.

        Raises:
            CheckFailed: another one arrives, or none in time.
        """
        try:
            data, source = await self.receive_at_upstream(self.timeout)
        except TimeoutError:
            raise self._describe_silence("upstream", sent, self.timeout, mistake) from None
        _expect_same("upstream", sent, data, mistake)
        return source

    async def pass_down(
        self, address: Any, client: RecordedSocket, data: bytes, *, mistake: str = ""
    ) -> None:
        """Send a datagram from the upstream to a client's address there, and receive it at the client.

        Raises:
            CheckFailed: another one arrives, or none in time.
        """
        self.send_from_upstream(data, address)
        await self.expect_at_client(client, data, mistake=mistake)

    async def expect_at_client(self, client: RecordedSocket, sent: bytes, *, mistake: str = "") -> None:
        """Receive exactly this datagram at a client.

        Raises:
            CheckFailed: another one arrives, or none in time.
        """
        try:
            data = await client.receive(client.timeout)
        except TimeoutError:
            raise self._describe_silence(client.name, sent, client.timeout, mistake) from None
        except OSError as error:
            expected = f"the {client.name} to receive {quote_stream(sent)}"
            raise CheckFailed(expected, f"recv() failed: {errno_text(error.errno or 0)}") from error
        client.note(f"receives {quote_stream(data)}")
        _expect_same(client.name, sent, data, mistake)

    async def exchange(self, conn: RecordedSocket, *messages: bytes) -> None:
        """Pass a request and a reply on for a client. `messages` are ignored: any bytes pass."""
        address = await self.pass_up(conn, b"request of " + conn.name.encode())
        await self.pass_down(address, conn, b"reply to " + conn.name.encode())

    async def expect_served(self, name: str = "next", number: int = 0) -> None:
        """Check that a new client gets a reply, and close it."""
        client = await self.connect(f"client {name}")
        await self.exchange(client)
        client.close()

    @staticmethod
    def _describe_silence(name: str, sent: bytes, timeout: float, mistake: str) -> CheckFailed:
        expected = f"the {name} to receive {quote_stream(sent) if sent else 'an empty datagram'}"
        happened = f"nothing arrived within {timeout:g} s"
        return CheckFailed(expected, happened, timed_out=True, cause=mistake)


def name_address(address: Any) -> str:
    """Return a socket address as text, such as 127.0.0.1#53."""
    return f"{address[0]}#{address[1]}"


def _expect_same(name: str, sent: bytes, data: bytes, mistake: str) -> None:
    if data == sent:
        return
    expected = f"the {name} to receive {quote_stream(sent) if sent else 'an empty datagram'}"
    if not data:
        raise CheckFailed(
            expected, "an empty datagram arrived, which was not sent",
            cause="makes an empty datagram of an error, such as ECONNREFUSED",
        )  # fmt: skip
    at = first_difference(sent, data)
    if at == len(data):
        raise CheckFailed(
            expected, f"a datagram of only {at:,} bytes arrived, the beginning of it",
            cause=mistake or f"cuts datagrams: a buffer of {at:,} bytes for recvfrom(), or splits them",
        )  # fmt: skip
    if at == len(sent):
        more = f"a datagram with {len(data) - at:,} bytes more arrived: {quote_stream(data)}"
        cause = "joins datagrams, or sends the whole buffer instead of its filled part"
        raise CheckFailed(expected, more, cause=mistake or cause)
    raise CheckFailed(expected, f"another datagram arrived: {quote_stream(data)}", cause=mistake)
