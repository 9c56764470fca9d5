const dgram = require("dgram");
const socket = dgram.createSocket("udp4");
let left = 3;
socket.on("message", (message) => {
  console.log(String(message));
  if (--left) socket.send(`datagram ${left}`, Number(process.argv[2]), "127.0.0.1");
  else socket.close();
});
socket.send("datagram", Number(process.argv[2]), "127.0.0.1");
