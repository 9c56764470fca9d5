const net = require('net');

function lookupRate(cb) {
  setTimeout(() => cb(1.19), 150);
}

net.createServer((socket) => {
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (d) => { text += d; });
  socket.on('end', () => {
    const net = text.trim().split(/\s+/).reduce((a, b) => a + Number(b), 0);
    lookupRate((rate) => {
      socket.end(`total ${(net * rate).toFixed(2)}\n`);
    });
  });
  socket.on('error', (err) => console.log('socket:', err.message));
}).listen(+process.argv[2], '127.0.0.1');
