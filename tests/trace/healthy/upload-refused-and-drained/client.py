import http.client
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
picture = bytes(range(256)) * 40_000
try:
    connection.request("PUT", "/pictures/1", body=picture)
    response = connection.getresponse()
    print(response.status, response.read())
except OSError as error:
    print("upload failed:", error)
    sys.exit(1)
