const net = require("net");
const s = net.connect(Number(process.argv[3]), "localhost", () => s.write("hi\n"));
s.on("error", (e) => console.error(String(e)));
