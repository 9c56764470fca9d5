import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
for cmd in ["echo hello", "uname", "mkdir -p work", "ls", "quit"]:
    print("$", cmd)
    s.send(cmd.encode())
    if cmd == "quit":
        break
    print(s.recv(4096).decode())
s.close()
