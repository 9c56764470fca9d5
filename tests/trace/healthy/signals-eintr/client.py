import socket, sys, time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for _ in range(4):
        time.sleep(0.2)
        s.sendall(b"ping")
        s.recv(100)
