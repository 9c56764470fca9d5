const http = require("http");
http.createServer((request, response) => {
  let size = 0;
  request.on("data", (chunk) => (size += chunk.length));
  request.on("end", () => {
    response.setHeader("Content-Type", "text/plain");
    response.write(`${request.method} ${request.url}\n`);
    response.end(`${size} bytes\n`);
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
