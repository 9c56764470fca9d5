const dgram = require("dgram");
const s = dgram.createSocket("udp4");
s.on("message", (m) => { console.log(String(m)); s.close(); });
s.connect(Number(process.argv[2]), "127.0.0.1", () => s.send("ping"));
setTimeout(() => { console.log("timeout"); process.exit(0); }, 1500);
