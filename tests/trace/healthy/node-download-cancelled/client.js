const net = require("net");
let count = 0;
const conn = net.connect(Number(process.argv[2]), "127.0.0.1");
conn.on("data", (data) => { if ((count += data.length) > 400000) conn.destroy(); });
