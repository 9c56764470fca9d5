import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    stream = s.makefile("rwb")
    for word in (b"one", b"two", b"three"):
        stream.write(word + b"\n")
        stream.flush()
        print(stream.readline())
    stream.close()
