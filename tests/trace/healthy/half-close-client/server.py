import socket, sys, zlib

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    with conn:
        checksum = 0
        while data := conn.recv(8192):
            checksum = zlib.crc32(data, checksum)
        conn.sendall(b"%08x\n" % checksum)
