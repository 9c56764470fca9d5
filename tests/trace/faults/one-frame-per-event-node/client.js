const net = require('net');

function frame(obj) {
  const body = Buffer.from(JSON.stringify(obj));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

const items = ['bolt', 'nut', 'washer'];
let answered = 0;
let buf = Buffer.alloc(0);
const sock = net.connect(+process.argv[2], '127.0.0.1', () => {
  sock.cork();
  items.forEach((item, id) => sock.write(frame({ id, item })));
  sock.uncork();
});
sock.on('data', (chunk) => {
  buf = Buffer.concat([buf, chunk]);
  while (buf.length >= 4 && buf.length >= 4 + buf.readUInt32BE(0)) {
    const len = buf.readUInt32BE(0);
    const msg = JSON.parse(buf.subarray(4, 4 + len));
    buf = buf.subarray(4 + len);
    console.log(items[msg.id], msg.count);
    if (++answered === items.length) sock.end();
  }
});
sock.on('error', (e) => console.log('client:', e.message));
