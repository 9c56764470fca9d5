const http = require("http");

const server = http.createServer((request, response) => {
  let size = 0;
  request.on("data", (chunk) => (size += chunk.length));
  request.on("end", () => response.end(request.method + " " + size + "\n"));
});
server.keepAliveTimeout = 300;
server.listen(Number(process.argv[2]), "127.0.0.1");
