const net = require("net");
const server = net.createServer((s) => {
  s.on("data", (d) => {
    s.write("ok\n");
    if (String(d).trim() === "stop") server.close(() => { console.log("stopped"); process.exit(0); });
  });
});
server.listen(Number(process.argv[2] || 0), "127.0.0.1", () => console.log(server.address().port));
