const dgram = require("dgram");
const s = dgram.createSocket("udp4");
s.on("message", (m, r) => { const o = dgram.createSocket("udp4"); o.send("pong", r.port, r.address, () => o.close()); });
s.bind(Number(process.argv[2]), "127.0.0.1");
