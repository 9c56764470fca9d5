import json, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    with conn:
        order = json.loads(conn.recv(1000))
        conn.sendall(b"%d\n" % (order["price"] * order["count"]))
