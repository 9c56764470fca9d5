const net = require("net");
net.createServer((s) => {
  s.on("error", () => {});
  for (let i = 0; i < 3; i++) s.write(JSON.stringify({ id: i, text: "state " + i }));
}).listen(Number(process.argv[2]), "127.0.0.1");
