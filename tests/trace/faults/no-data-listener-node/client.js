const net = require('net');
const log = Buffer.alloc(12 * 1024 * 1024, 'x');
const c = net.connect(Number(process.argv[2]), '127.0.0.1', () => {
  c.write(log, () => {
    console.log('log uploaded');
    c.end();
  });
});
