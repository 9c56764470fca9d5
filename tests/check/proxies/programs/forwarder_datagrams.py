"""A UDP forwarder with a socket for each client: python3 forwarder_datagrams.py PORT HOST PORT."""

import errno
import selectors
import socket
import sys

MAX_CLIENTS = 500
selector = selectors.DefaultSelector()
clients = {}  # address -> its socket, the one used longest ago first


def forget_oldest():
    """Close the socket of the client that was silent for longest."""
    oldest = clients.pop(next(iter(clients)))
    selector.unregister(oldest)
    oldest.close()


def new_socket():
    """Return a new socket, if need be instead of the one used longest ago."""
    try:
        return socket.socket(type=socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or not clients:
            raise
    forget_oldest()
    return socket.socket(type=socket.SOCK_DGRAM)


def socket_for(client, upstream):
    """Return the socket of a client, which the upstream sees as its address."""
    sock = clients.pop(client, None)
    if sock is None:
        if len(clients) >= MAX_CLIENTS:
            forget_oldest()
        sock = new_socket()
        sock.setblocking(False)
        sock.connect(upstream)
        selector.register(sock, selectors.EVENT_READ, client)
    clients[client] = sock
    return sock


def from_client(listener, upstream):
    """Pass a client's datagram on."""
    try:
        data, client = listener.recvfrom(65536)
        socket_for(client, upstream).send(data)
    except OSError as error:
        print(f"from client: {error}", file=sys.stderr)


def from_upstream(sock, listener, client):
    """Pass a datagram of the upstream on to its client."""
    try:
        data = sock.recv(65536)
        listener.sendto(data, client)
    except OSError as error:
        print(f"from upstream: {error}", file=sys.stderr)


def main():
    """Run the loop."""
    port, upstream = int(sys.argv[1]), (sys.argv[2], int(sys.argv[3]))
    listener = socket.socket(type=socket.SOCK_DGRAM)
    listener.setblocking(False)
    listener.bind(("127.0.0.1", port))
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                from_client(listener, upstream)
            else:
                from_upstream(key.fileobj, listener, key.data)


main()
