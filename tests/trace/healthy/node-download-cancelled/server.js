const net = require("net");
net.createServer((conn) => {
  const chunk = Buffer.alloc(65536, "x");
  const fill = () => { while (conn.write(chunk)); };
  conn.on("drain", fill);
  conn.on("error", () => console.log("cancelled"));
  fill();
}).listen(Number(process.argv[2]), "127.0.0.1");
