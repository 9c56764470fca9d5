import socket

listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind("seq.sock")
listener.listen()
conn, _ = listener.accept()
while data := conn.recv(1000):
    conn.send(b"%d bytes" % len(data))
conn.close()
