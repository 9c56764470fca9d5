const dgram = require("dgram");
const socket = dgram.createSocket("udp6");
let left = 20;
const timer = setInterval(() => {
  socket.send(`metric ${left}`, Number(process.argv[2]), "::1");
  if (!--left) { clearInterval(timer); setTimeout(() => socket.close(), 400); }
}, 20);
socket.on("message", (m) => console.log(String(m)));
