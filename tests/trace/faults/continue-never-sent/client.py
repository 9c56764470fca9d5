import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
body = b"z" * 3000
s.sendall(b"PUT /obj HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body))
r = s.recv(1024)
if r.startswith(b"HTTP/1.1 100"):
    s.sendall(body)
    r = s.recv(1024)
print(r)
