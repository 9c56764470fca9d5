import socket
import sys
import time

MAX_REQUESTS = 5


def handle(conn):
    with conn:
        name = conn.makefile("r").readline().strip()
        time.sleep(0.05)
        conn.sendall(f"hello {name}\n".encode())


def worker(generation):
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as ls:
        for _ in range(MAX_REQUESTS):
            conn, _ = ls.accept()
            handle(conn)
    print(f"worker {generation}: {MAX_REQUESTS} requests served, recycled", flush=True)


generation = 1
while True:
    worker(generation)
    generation += 1
