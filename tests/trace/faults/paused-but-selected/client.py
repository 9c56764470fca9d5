import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for number in range(5):
        s.sendall(b"job-%d  \n" % number)
    for line in s.makefile():
        print(line.strip())
