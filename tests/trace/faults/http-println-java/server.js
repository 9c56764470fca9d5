const net = require("net");

net
  .createServer((socket) => {
    let request = "";
    socket.on("data", (chunk) => {
      request += chunk;
      if (request.includes("\r\n\r\n")) {
        socket.end("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnews\n");
      }
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
