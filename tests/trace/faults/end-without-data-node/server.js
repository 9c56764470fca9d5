const net = require("net");
const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  socket.on("end", () => { socket.end("bye\n"); });
});
server.listen(Number(process.argv[2] || 0), "127.0.0.1", () => console.log(server.address().port));
