import socket, sys, threading

u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("127.0.0.1", int(sys.argv[1])))
t = socket.create_server(("127.0.0.1", int(sys.argv[1])))

def tcp():
    while True:
        connection, _ = t.accept()
        while connection.recv(65536):
            pass
        connection.close()

threading.Thread(target=tcp, daemon=True).start()
while True:
    u.recv(65536)
