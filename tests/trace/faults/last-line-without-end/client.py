import sys
import socket

script = """
set fan 3
set lamp off
get fan
"""


def run(sock, commands):
    sock.sendall("\n".join(commands).encode())
    answers = sock.makefile("r")
    return [answers.readline().rstrip("\n") for _ in commands]


sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
commands = [c for c in script.splitlines() if c]
for c, a in zip(commands, run(sock, commands)):
    print(c, "->", a)
sock.close()
