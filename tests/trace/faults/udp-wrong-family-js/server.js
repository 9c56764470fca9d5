const dgram = require("dgram");
const socket = dgram.createSocket("udp4");
socket.on("message", (message, peer) => socket.send("pong", peer.port, peer.address));
socket.bind(Number(process.argv[2]), "127.0.0.1");
