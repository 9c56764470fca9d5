import socket, sys, threading

def serve(connection):
    connection.settimeout(0.5)  # idle connections are closed
    try:
        while data := connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    except TimeoutError:
        pass
    connection.close()

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
