import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    stream = s.makefile("rw")
    for _ in range(20):
        print("fast", file=stream, flush=True)
        print(stream.readline())
    stream.close()
