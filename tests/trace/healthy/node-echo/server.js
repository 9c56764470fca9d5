const net = require("net");
net.createServer((conn) => {
  conn.on("data", (data) => conn.write(data));
  conn.on("end", () => conn.end());
  conn.on("error", (error) => console.error(error.message));
}).listen(Number(process.argv[2]), "127.0.0.1");
