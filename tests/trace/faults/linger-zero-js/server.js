const net = require("net");

net
  .createServer((socket) => {
    socket.on("data", () => {
      socket.write(Buffer.alloc(4000000));
      socket.resetAndDestroy();
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
