const dgram = require("dgram");
const socket = dgram.createSocket("udp6");
let count = 0;
socket.on("message", () => count++);
socket.bind(Number(process.argv[2]));
