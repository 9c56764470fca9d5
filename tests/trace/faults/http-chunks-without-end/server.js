const net = require("net");

net
  .createServer((socket) => {
    socket.on("data", () => {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      for (const word of ["one", "two", "three"]) {
        socket.write(word.length.toString(16) + "\r\n" + word + "\r\n");
      }
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
