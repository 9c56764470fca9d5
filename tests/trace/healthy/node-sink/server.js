const net = require("net");

net
  .createServer((socket) => {
    let size = 0;
    socket.on("data", (chunk) => (size += chunk.length));
    socket.on("end", () => {
      console.log("stored", size);
      socket.destroy();
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
