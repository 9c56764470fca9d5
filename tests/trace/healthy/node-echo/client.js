const net = require("net");
const conn = net.connect(Number(process.argv[2]), "127.0.0.1", () => conn.write("hello 1\n"));
let count = 1;
conn.on("data", (data) => {
  process.stdout.write(data);
  if (++count > 4) conn.end();
  else conn.write(`hello ${count}\n`);
});
