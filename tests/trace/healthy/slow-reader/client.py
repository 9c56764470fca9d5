import socket, sys, time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    total = 0
    while data := s.recv(65536):
        total += len(data)
        time.sleep(0.01)
    assert total == 1_000_000
