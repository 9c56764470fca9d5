const net = require('net');
const readline = require('readline');

net.createServer((socket) => {
  let records = 0, bad = 0;
  const lines = readline.createInterface({ input: socket, crlfDelay: Infinity });
  lines.on('line', (line) => {
    try {
      JSON.parse(line);
      records++;
    } catch (e) {
      bad++;
    }
  });
  lines.on('close', () => console.log(`stored ${records} records, ${bad} unreadable`));
  socket.on('error', (err) => console.log('connection:', err.code));
}).listen(+process.argv[2], '127.0.0.1');
