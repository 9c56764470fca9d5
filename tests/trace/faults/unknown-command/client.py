import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    answers = s.makefile("r")
    for command in ("SET colour blue", "GET colour", "DELETE colour"):
        s.sendall(command.encode() + b"\n")
        print(answers.readline().strip())
