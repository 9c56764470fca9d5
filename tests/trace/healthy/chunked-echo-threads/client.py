import socket, sys, threading

payload = bytes(range(256)) * 4096
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))


def send():
    s.sendall(payload)
    s.shutdown(socket.SHUT_WR)


sender = threading.Thread(target=send)
sender.start()
got = bytearray()
while chunk := s.recv(30000):
    got += chunk
sender.join()
s.close()
assert got == payload
