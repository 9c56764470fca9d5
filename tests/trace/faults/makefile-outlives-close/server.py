import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
streams = []
while True:
    conn, _ = listener.accept()
    stream = conn.makefile("rwb", buffering=0)
    streams.append(stream)
    stream.write(b"answer to " + stream.readline())
    conn.close()
