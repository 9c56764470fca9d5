"""Twisted: a callback per chunk, on its epoll reactor."""

import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import protocol, reactor  # noqa: E402  (the reactor must be installed first)


class TwistedUpper(protocol.Protocol):  # type: ignore[misc, unused-ignore]
    """One connection."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data.upper())


class TwistedUpperDatagrams(protocol.DatagramProtocol):  # type: ignore[misc, unused-ignore]
    """All datagrams of the socket."""

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.transport.write(datagram.upper(), addr)


if sys.argv[1] == "udp":
    port = reactor.listenUDP(0, TwistedUpperDatagrams(), interface="127.0.0.1")
else:
    port = reactor.listenTCP(
        0, protocol.Factory.forProtocol(TwistedUpper), backlog=4096, interface="127.0.0.1"
    )
print(f"{sys.argv[1]}://127.0.0.1:{port.getHost().port}", flush=True)  # noqa: T201
reactor.run()
