import sys
import socket
import threading
import time

PORT, ANNOUNCE = int(sys.argv[1]), int(sys.argv[2])


def service_socket():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", PORT))
    return s


def beacon(until):
    out = service_socket()
    while time.monotonic() < until:
        out.sendto(b"HERE camera-3", ("127.0.0.1", ANNOUNCE))
        time.sleep(0.4)
    out.close()


end = time.monotonic() + 7
threading.Thread(target=beacon, args=(end,), daemon=True).start()
service = service_socket()
service.settimeout(0.5)
answered = 0
while time.monotonic() < end:
    try:
        query, peer = service.recvfrom(1500)
    except socket.timeout:
        continue
    service.sendto(b"INFO " + query[6:] + b" 1920x1080", peer)
    answered += 1
print("answered", answered)
