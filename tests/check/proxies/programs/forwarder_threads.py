"""A TCP forwarder with two threads for each connection: python3 forwarder_threads.py PORT HOST PORT."""

import contextlib
import signal
import socket
import struct
import sys
import threading


def reset(sock):
    """Close with RST (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Pair:
    """Two connections, and what has happened to them."""

    def __init__(self, client, upstream):
        self.client = client
        self.upstream = upstream
        self.failed = False

    def copy(self, source, target):
        """Copy one direction until its end."""
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self.failed = True
            for sock in (source, target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)

    def finish(self):
        """End both connections in the same way."""
        for sock in (self.client, self.upstream):
            if self.failed:
                reset(sock)
            else:
                sock.close()


def serve(client, address):
    """Serve one client."""
    try:
        upstream = socket.create_connection(address)
    except OSError:
        reset(client)
        return
    pair = Pair(client, upstream)
    other = threading.Thread(target=pair.copy, args=(upstream, client))
    other.start()
    pair.copy(client, upstream)
    other.join()
    pair.finish()


def main():
    """Accept clients."""
    port, host, upstream_port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    signal.signal(signal.SIGHUP, lambda *_: None)  # there is no configuration to read again
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    while True:
        try:
            client, _ = listener.accept()
        except OSError as error:
            print(f"accept: {error}", file=sys.stderr)
            threading.Event().wait(0.1)
            continue
        threading.Thread(target=serve, args=(client, (host, upstream_port)), daemon=True).start()


main()
