import http.client, sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("POST", "/notes", b"buy milk, bread and a newspaper", {"Content-Type": "text/plain"})
print(connection.getresponse().status)
