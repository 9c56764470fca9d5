const http = require("http");

http
  .createServer((request, response) => {
    const body = "grüße";
    response.writeHead(200, { "Content-Length": body.length + 20 });
    response.write(body);
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
