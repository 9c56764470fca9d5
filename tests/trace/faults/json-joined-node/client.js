const net = require("net");

const s = net.connect(Number(process.argv[2]), "127.0.0.1");
let seen = 0;
s.on("connect", () => {
  const until = Date.now() + 300;
  while (Date.now() < until); // draw the window
});
s.on("data", (chunk) => {
  const m = JSON.parse(chunk);
  console.log(m.id, m.text);
  if (++seen === 3) s.end();
});
