import socket
import sys

client = socket.socket()
client.connect(("127.0.0.1", int(sys.argv[1])))
for word in ["one", "two", "three"]:
    client.sendall(word.encode())
    print(client.recv(1024).decode())
client.close()
