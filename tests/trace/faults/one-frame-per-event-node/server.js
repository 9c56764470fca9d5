const net = require('net');

function frame(obj) {
  const body = Buffer.from(JSON.stringify(obj));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

const stock = { bolt: 120, nut: 75, washer: 900 };

net.createServer((sock) => {
  let buf = Buffer.alloc(0);
  sock.on('error', () => {});
  sock.on('data', (chunk) => {
    buf = Buffer.concat([buf, chunk]);
    if (buf.length < 4) return;
    const len = buf.readUInt32BE(0);
    if (buf.length < 4 + len) return;
    const msg = JSON.parse(buf.subarray(4, 4 + len));
    buf = buf.subarray(4 + len);
    sock.write(frame({ id: msg.id, count: stock[msg.item] || 0 }));
  });
}).listen(+process.argv[2], '127.0.0.1');
