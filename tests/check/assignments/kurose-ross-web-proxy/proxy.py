import socket
import sys
import threading

cache = {}


def fetch(host, path):
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port or 80)), timeout=10) as origin:
        origin.sendall(f"GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        page = b""
        while data := origin.recv(65536):
            page += data
    return page


def serve(client):
    with client:
        request = b""
        while b"\r\n\r\n" not in request:
            data = client.recv(4096)
            if not data:
                return
            request += data
        url = request.split()[1].decode().removeprefix("http://")
        page = cache.get(url)
        if page is None:
            host, _, path = url.partition("/")
            try:
                page = fetch(host, path)
            except OSError:
                page = b"HTTP/1.0 502 Bad Gateway\r\n\r\n"
            else:
                if page.split()[1] == b"200":
                    cache[url] = page
        client.sendall(page)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
