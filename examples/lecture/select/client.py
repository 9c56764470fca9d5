import socket
import sys
import time

connection = socket.create_connection(("127.0.0.1", 12000))
for word in sys.argv[1:]:
    connection.sendall(word.encode())
    connection.recv(100)
    time.sleep(0.1)  # meanwhile the server serves the other client
connection.close()
