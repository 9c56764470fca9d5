import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    answers = s.makefile()
    for number in (10, 25, 0):
        s.sendall(b"%d\n" % number)
        print(answers.readline().strip())
