import sys
import random
import socket
import time

random.seed(3)
words = [f"{random.randrange(10**6):06d}" for _ in range(3000)]
for attempt in range(20):
    try:
        s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=8)
        break
    except ConnectionRefusedError:
        time.sleep(0.2)
else:
    raise SystemExit("proxy not up")
with s:
    half = len(words) // 2
    s.sendall("".join(w + "\n" for w in words[:half]).encode())
    time.sleep(0.7)
    s.sendall("".join(w + "\n" for w in words[half:]).encode())
    s.shutdown(socket.SHUT_WR)
    got = s.makefile().read().splitlines()
print("sorted" if got == sorted(words) else "WRONG", len(got))
