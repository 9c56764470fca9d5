import socket, sys

for _ in range(3):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    text = b""
    while data := s.recv(100):
        text += data
    s.close()
    print(text)
