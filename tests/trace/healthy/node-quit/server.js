const net = require("net");

net
  .createServer((socket) => {
    socket.setEncoding("utf8");
    socket.on("data", (text) => {
      console.log("event", text.trim());
      socket.end();
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
