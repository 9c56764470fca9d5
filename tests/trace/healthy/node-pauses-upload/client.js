const net = require('net');

const c = net.connect(+process.argv[2], '127.0.0.1', () => c.end(Buffer.alloc(1000000, 'x')));
c.setEncoding('utf8');
c.on('data', (text) => console.log(text.trim()));
