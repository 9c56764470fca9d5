import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    stream = connection.makefile("rw")
    for line in stream:
        stream.write("echo " + line)
        stream.flush()
    connection.close()
