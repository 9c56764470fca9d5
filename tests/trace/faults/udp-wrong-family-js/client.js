const dgram = require("dgram");
const socket = dgram.createSocket("udp6");
socket.on("message", (message) => { console.log(String(message)); socket.close(); });
socket.send("ping", Number(process.argv[2]), "::1");
setTimeout(() => { console.log("no pong"); process.exit(1); }, 1500);
