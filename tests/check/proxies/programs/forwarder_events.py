"""A TCP forwarder with one thread: python3 forwarder_events.py PORT HOST PORT."""

import errno
import selectors
import signal
import socket
import struct
import sys

LIMIT = 65536
selector = selectors.DefaultSelector()


class Side:
    """One of the two connections of a pair, and the data that is to be sent on it."""

    def __init__(self, sock, connected):
        sock.setblocking(False)
        self.sock = sock
        self.connected = connected
        self.buffer = bytearray()
        self.at_eof = False  # it has sent its FIN
        self.finished = False  # we have sent ours
        self.events = 0
        self.other = None

    def update(self):
        """Wait for what is wanted now."""
        if not self.connected:
            events = selectors.EVENT_WRITE
        else:
            room = not self.at_eof and len(self.other.buffer) < LIMIT
            events = (selectors.EVENT_READ if room else 0) | (selectors.EVENT_WRITE if self.buffer else 0)
        if events == self.events:
            return
        if self.events:
            selector.unregister(self.sock)
        if events:
            selector.register(self.sock, events, self)
        self.events = events

    def read(self):
        """Move data into the other side's buffer."""
        data = self.sock.recv(LIMIT)
        if data:
            self.other.buffer += data
        else:
            self.at_eof = True

    def write(self):
        """Send what is in the buffer, then the end."""
        if not self.connected:
            if number := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, "connect")
            self.connected = True
        if self.buffer:
            sent = self.sock.send(self.buffer)
            del self.buffer[:sent]

    def finish(self):
        """Pass the end on, when all data before it is sent."""
        if self.other.at_eof and self.connected and not self.buffer and not self.finished:
            self.finished = True
            self.sock.shutdown(socket.SHUT_WR)

    def handle(self, events):
        """Do what is possible now."""
        pair = (self, self.other)
        try:
            if events & selectors.EVENT_WRITE:
                self.write()
            if events & selectors.EVENT_READ:
                self.read()
            for side in pair:
                if side.connected and side.buffer:
                    side.write()
                side.finish()
        except BlockingIOError:
            pass
        except OSError:
            close(pair, with_reset=True)
            return
        if all(side.finished for side in pair):
            close(pair)
            return
        for side in pair:
            side.update()


def close(pair, with_reset=False):
    """Close both connections."""
    for side in pair:
        if side.events:
            selector.unregister(side.sock)
            side.events = 0
        if with_reset:
            side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side.sock.close()


def accept(listener, address):
    """Accept a client, and connect to the upstream."""
    try:
        client, _ = listener.accept()
    except OSError as error:
        print(f"accept: {error}", file=sys.stderr)
        selector.unregister(listener)
        return False
    try:
        upstream = socket.socket()
    except OSError:
        client.close()
        return True
    sides = Side(client, True), Side(upstream, False)
    sides[0].other, sides[1].other = sides[1], sides[0]
    if upstream.connect_ex(address) not in (0, errno.EINPROGRESS):
        close(sides, with_reset=True)
        return True
    for side in sides:
        side.update()
    return True


def main():
    """Run the loop."""
    port, host, upstream_port = int(sys.argv[1]), socket.gethostbyname(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGHUP, lambda *_: None)  # there is no configuration to read again
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    selector.register(listener, selectors.EVENT_READ)
    accepting = True
    while True:
        ready = selector.select(None if accepting else 0.1)
        if not accepting:
            selector.register(listener, selectors.EVENT_READ)
            accepting = True
        for key, events in ready:
            if key.data is None:
                accepting = accept(listener, (host, upstream_port))
            elif key.data.events:
                key.data.handle(events)


main()
