const net = require('net');

const lines = 4000;
const sock = net.connect({ port: +process.argv[2], host: '127.0.0.1', allowHalfOpen: true });
let answer = '';
let i = 0;

function feed() {
  while (i < lines) {
    i++;
    if (!sock.write(`line number ${i} of the essay\n`)) {
      sock.once('drain', feed);
      return;
    }
  }
  sock.end();
}

sock.on('connect', feed);
sock.setEncoding('utf8');
sock.on('data', (d) => { answer += d; });
sock.on('error', (e) => { console.error(e.code); process.exitCode = 1; });
sock.on('end', () => {
  process.stdout.write(answer);
  process.exitCode = answer.startsWith(`${lines * 6} words`) ? 0 : 1;
});
