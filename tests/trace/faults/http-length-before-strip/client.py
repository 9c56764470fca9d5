import sys
import json, socket
def request(s, method, path, body=""):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    s.sendall((head + "\r\n" + body.strip()).encode())
    resp = b""
    while b"\r\n\r\n" not in resp:
        d = s.recv(4096)
        if not d: raise EOFError
        resp += d
    return resp.split(b"\r\n")[0]
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(request(s, "GET", "/notes"))
print(request(s, "POST", "/notes", json.dumps({"title": "x", "text": "a longer text"}) + "   \n"))
s.close()
