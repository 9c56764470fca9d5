const net = require("net");
function talker(lines, delay) {
  return new Promise((ok) => {
    const s = net.connect({ port: Number(process.argv[2]), host: "127.0.0.1", allowHalfOpen: true });
    let buf = "";
    s.on("data", (d) => { buf += d; });
    s.on("end", () => { console.log(JSON.stringify(buf)); s.end(); ok(); });
    s.on("connect", () => setTimeout(() => s.write(lines), delay));
  });
}
Promise.all([talker("slow\n", 0), talker("quick\n", 50), talker("stop\n", 250)]).then(() => console.log("all"));
