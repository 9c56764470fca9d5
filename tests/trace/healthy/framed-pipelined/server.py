import socket, struct, sys, threading


def handle(conn):
    buffer = b""
    with conn:
        while data := conn.recv(65536):
            buffer += data
            while len(buffer) >= 2:
                (length,) = struct.unpack("!H", buffer[:2])
                if len(buffer) < 2 + length:
                    break
                body, buffer = buffer[2 : 2 + length], buffer[2 + length :]
                conn.sendall(struct.pack("!H", length) + body.upper())


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    threading.Thread(target=handle, args=(conn,), daemon=True).start()
