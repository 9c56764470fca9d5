import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
def body():
    for i in range(5):
        yield b"p" * 1000
c.request("POST", "/upload", body=body(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
print(c.getresponse().status)
