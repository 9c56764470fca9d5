const net = require('net');
let n = 0;
net.createServer((sock) => {
  sock.on('data', (chunk) => {
    let msg;
    try { msg = JSON.parse(chunk.toString()); } catch (e) { return; }
    n++;
    const sum = msg.items.reduce((a, b) => a + b, 0);
    sock.write(JSON.stringify({ id: msg.id, sum, n }));
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
