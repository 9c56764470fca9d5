import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    time.sleep(0.2)  # looks the client up
    while command := connection.recv(1024).decode():
        word = command.split()[0]
        connection.sendall(b"hello" if word == "HELLO" else b"12.5 degrees" if word == "TEMP" else b"what?")
    connection.close()
