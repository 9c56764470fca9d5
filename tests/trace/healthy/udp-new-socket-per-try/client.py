import random, socket, sys

for attempt in range(3):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.4)
        s.sendto(b"%04x lookup" % random.randrange(65536), ("127.0.0.1", int(sys.argv[1])))
        try:
            print(s.recv(100))
            break
        except TimeoutError:
            print("again")
