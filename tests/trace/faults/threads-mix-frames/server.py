import socket, struct, sys, threading, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()


def stream(kind, text):
    for number in range(5):
        body = (text % number).encode()
        connection.sendall(struct.pack("!BBH", 1, kind, len(body)))
        time.sleep(0.01)  # looks the body up
        connection.sendall(body)


threads = [threading.Thread(target=stream, args=each) for each in ((1, "price %d"), (2, "headline %d"))]
for each in threads:
    each.start()
for each in threads:
    each.join()
connection.close()
