import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=3) as s, s.makefile("rw") as f:
    f.write("WHO 7\n")
    f.flush()
    answer = f.readline().strip()
print(answer)
sys.exit(0 if answer.startswith("USER ") else "unexpected answer")
