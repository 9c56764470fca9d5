import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for message in (b"Hello, World", b"A Somewhat Longer Message", b"x"):
        s.sendall(message)
        got = b""
        while len(got) < len(message):
            got += s.recv(100)
        print(got)
