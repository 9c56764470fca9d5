import http.client, sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for method in ("GET", "DELETE"):
    connection.request(method, "/notes/2")
    response = connection.getresponse()
    print(response.status, response.read())
