const net = require('net');
const s = net.connect(Number(process.argv[2]), '127.0.0.1');
const sizes = [3, 10, 60000];
let i = 0;
function next() {
  if (i === sizes.length) { s.end(); return; }
  const items = Array.from({ length: sizes[i] }, (_, k) => k % 1000);
  s.write(JSON.stringify({ id: i, items }));
}
s.on('connect', next);
s.on('data', (d) => { console.log('answer', d.toString()); i++; next(); });
