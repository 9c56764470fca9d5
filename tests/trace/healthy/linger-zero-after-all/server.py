import socket, sys, threading

def serve(connection):
    try:
        while data := connection.recv(4096):
            connection.sendall(data)
    except ConnectionResetError:
        pass
    connection.close()

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
