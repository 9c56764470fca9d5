const net = require("net");
const s = net.connect(Number(process.argv[2]), "127.0.0.1", () => { s.end("Ignore this message\n"); });
s.on("data", (d) => console.log("answer", String(d)));
s.on("close", () => console.log("closed"));
