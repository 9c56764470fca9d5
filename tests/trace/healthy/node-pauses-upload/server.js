const net = require('net');

net.createServer((socket) => {
  let size = 0;
  socket.on('data', (chunk) => {
    size += chunk.length;
    socket.pause();
    setTimeout(() => socket.resume(), size < 200000 ? 700 : 1);
  });
  socket.on('end', () => socket.end(`stored ${size}\n`));
}).listen(+process.argv[2], '127.0.0.1');
