"""A proxy in front of the checksum service."""
import socket
import sys
import threading


def pump(source, target, label):
    total = 0
    while True:
        data = source.recv(8192)
        if not data:
            break
        target.sendall(data)
        total += len(data)
    print(label, total, "bytes done", flush=True)


def handle(client, upstream_port):
    upstream = socket.create_connection(("127.0.0.1", upstream_port))
    threads = [
        threading.Thread(target=pump, args=(client, upstream, "up")),
        threading.Thread(target=pump, args=(upstream, client, "down")),
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    upstream.close()
    client.close()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    threading.Thread(target=handle, args=(conn, int(sys.argv[2])), daemon=True).start()
