import socket, sys

with socket.create_connection(("localhost", int(sys.argv[1]))) as s:
    stream = s.makefile("rw")
    stream.write("one\ntwo\nthr")
    stream.flush()
    stream.write("ee\nfour\n")
    stream.flush()
    print([stream.readline() for _ in range(4)])
    stream.close()
