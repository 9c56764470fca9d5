import http.client
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for body in ("{", '{"a": 1}'):
    connection.request("POST", "/", body)
    response = connection.getresponse()
    print(response.status, response.read())
connection.close()
