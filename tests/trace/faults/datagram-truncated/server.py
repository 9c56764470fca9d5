import json, socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    data, peer = s.recvfrom(1024)
    try:
        s.sendto(b"%d items" % len(json.loads(data)["items"]), peer)
    except ValueError:
        s.sendto(b"bad JSON", peer)
