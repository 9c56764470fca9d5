const net = require('net');
const readline = require('readline');

const TOTAL = 400;
const answers = new Map();
let tries = 0;

function start() {
  const sock = net.connect(+process.argv[2], '127.0.0.1');
  sock.on('error', (e) => {
    if (e.code === 'ECONNREFUSED' && ++tries < 20) setTimeout(start, 200);
    else { console.log('client:', e.message); process.exitCode = 1; }
  });
  sock.once('connect', () => {
    const lines = readline.createInterface({ input: sock });
    lines.on('error', () => {});
    lines.on('line', (line) => {
      const msg = JSON.parse(line);
      answers.set(msg.id, msg.square);
    });
    lines.on('close', () => {
      let wrong = 0;
      for (let id = 0; id < TOTAL; id++) if (answers.get(id) !== (id + 3) ** 2) wrong++;
      console.log(`${answers.size} answers, ${wrong} wrong or missing`);
    });
    for (let id = 0; id < TOTAL; id++) sock.write(JSON.stringify({ id, n: id + 3 }) + '\n');
    sock.end();
  });
}
start();
