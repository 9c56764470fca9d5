const net = require("net");
const s = net.connect({ host: "localhost", port: Number(process.argv[2]), autoSelectFamily: true });
s.on("connect", () => s.end("hello\n"));
s.on("data", (d) => console.log(String(d)));
