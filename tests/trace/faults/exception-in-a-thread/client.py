import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    answers = s.makefile()
    for order in ("add bolt 5", "take nut 7", "take screw 2"):
        s.sendall(order.encode() + b"\n")
        print(answers.readline().strip())
