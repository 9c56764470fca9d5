const net = require('net');

const LIMIT = 8;

const server = net.createServer({ allowHalfOpen: true }, (sock) => {
  let pending = '';
  let ended = false;
  let busy = 0;
  const queue = [];

  function finish() {
    if (ended && busy === 0 && queue.length === 0) sock.end();
  }
  function pump() {
    while (busy < LIMIT && queue.length) {
      const { id, n } = JSON.parse(queue.shift());
      busy++;
      setTimeout(() => {
        busy--;
        if (!sock.destroyed) sock.write(JSON.stringify({ id, square: n * n }) + '\n');
        pump();
      }, (id * 37) % 20);
    }
    if (queue.length > 50) sock.pause();
    else if (sock.isPaused()) sock.resume();
    finish();
  }
  sock.setEncoding('utf8');
  sock.on('data', (text) => {
    const lines = (pending + text).split('\n');
    pending = lines.pop();
    queue.push(...lines);
    pump();
  });
  sock.on('end', () => { ended = true; finish(); });
  sock.on('error', () => sock.destroy());
});
server.listen(+process.argv[2], '127.0.0.1');
