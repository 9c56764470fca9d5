const net = require("net");

const socket = net.connect(Number(process.argv[2]), "127.0.0.1", () => socket.write("report\n"));
socket.setTimeout(500);
socket.on("timeout", () => {
  console.error("no answer");
  process.exitCode = 1;
  socket.destroy();
});
socket.on("data", (data) => console.log(data.toString()));
