import sys
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
sock.connect(("127.0.0.1", int(sys.argv[1])))
for note in ("shopping: milk and bread", "work: call back"):
    sock.sendall((note + "\n").encode())
    print(sock.recv(1024).decode())
sock.close()
