import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
connection.setblocking(False)
request = b""
while not request.endswith(b"."):
    try:
        data = connection.recv(1024)
    except BlockingIOError:
        data = b""
    if not data:
        time.sleep(0.05)
    request += data
connection.sendall(b"ok")
