import json, socket, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.sendto(json.dumps({"items": list(range(500))}).encode(), ("127.0.0.1", int(sys.argv[1])))
print(s.recv(100))
