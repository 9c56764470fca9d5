const http = require("http");
const s = http.createServer((q, r) => { let n = 0; q.on("data", (d) => (n += d.length)); q.on("end", () => r.end("got " + n)); });
s.listen(Number(process.argv[2] || 0), "127.0.0.1", () => console.log(s.address().port));
