import socket

listener = socket.socket(socket.AF_UNIX)
listener.bind("./service.sock")
listener.listen()
conn, _ = listener.accept()
