const dgram = require('dgram');

const sock = dgram.createSocket('udp4');
const symbols = ['ACME', 'INIT', 'HOOL'];
let i = 0;

function next() {
  if (i === symbols.length) return sock.close();
  sock.send(symbols[i++], +process.argv[2], '127.0.0.1');
}

sock.on('message', (msg) => {
  try {
    const q = JSON.parse(msg.toString());
    console.log(q.symbol, q.price);
  } catch (e) {
    console.log(`${symbols[i - 1]}: ${msg.length} bytes, not JSON: ${e.message.slice(0, 50)}`);
  }
  next();
});
next();
