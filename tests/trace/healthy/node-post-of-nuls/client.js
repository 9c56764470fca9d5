const http = require("http");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
function post(n, then) {
  const q = http.request({ host: "127.0.0.1", port: Number(process.argv[2]), method: "POST", agent }, (r) => {
    r.on("data", (d) => console.log(String(d)));
    r.on("end", then);
  });
  q.end(Buffer.alloc(n));
}
post(10, () => setTimeout(() => post(50000, () => agent.destroy()), 100));
