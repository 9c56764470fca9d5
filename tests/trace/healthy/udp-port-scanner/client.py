import socket, sys

for port in range(int(sys.argv[1]) - 3, int(sys.argv[1]) + 3):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.3)
        s.connect(("127.0.0.1", port))
        try:
            s.send(b"")
            s.send(b"\r\n")
            print(port, "open", s.recv(100))
        except ConnectionRefusedError:
            print(port, "closed")
        except TimeoutError:
            print(port, "open or filtered")
