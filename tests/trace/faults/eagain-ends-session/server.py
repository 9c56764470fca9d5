import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
question = connection.recv(100)
time.sleep(0.4)  # looks it up
try:
    connection.sendall(b"42 to " + question)
except OSError as error:
    print(error)
