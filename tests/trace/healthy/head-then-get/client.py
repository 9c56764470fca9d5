import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for m in ("HEAD", "GET"):
    c.request(m, "/")
    r = c.getresponse()
    print(m, r.status, len(r.read()))
c.close()
