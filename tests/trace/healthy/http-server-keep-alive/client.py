import http.client, sys

conn = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for path in ("/a", "/b", "/c"):
    conn.request("GET", path)
    print(conn.getresponse().read())
conn.request("POST", "/form", body=b"name=value" * 500)
print(conn.getresponse().read())
conn.close()
