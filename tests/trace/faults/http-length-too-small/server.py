import json, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    body = json.dumps({"temperature": 21, "unit": "C"})
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    connection.sendall(b"Content-Length: %d\r\n\r\n" % (len(body) - 8))
    connection.sendall(body.encode())
    connection.close()
