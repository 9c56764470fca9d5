import socket
import sys
import time


def shortest_paths(stops):
    started = time.monotonic()
    table = {}
    while time.monotonic() - started < 2.5:
        for a in range(stops):
            for b in range(stops):
                table[a, b] = min(table.get((a, b), 99), abs(a - b) + 1)
        time.sleep(0.05)
    return table


sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=8)
replies = sock.makefile("rb")
sock.sendall(b"BEGIN line-14\n")
print(replies.readline().decode().strip())
table = shortest_paths(12)
try:
    for (a, b), cost in table.items():
        sock.sendall(b"%d,%d,%d\n" % (a, b, cost))
    sock.sendall(b"END\n")
    answer = replies.readline()
except OSError as e:
    sys.exit("upload failed: %s" % e)
if not answer:
    sys.exit("upload failed: no answer")
print(answer.decode().strip())
