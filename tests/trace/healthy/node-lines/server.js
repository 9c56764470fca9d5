const net = require("net");
const readline = require("readline");
net.createServer((conn) => {
  readline.createInterface({ input: conn }).on("line", (line) => conn.write(line.toUpperCase() + "\n"));
}).listen(Number(process.argv[2]));
