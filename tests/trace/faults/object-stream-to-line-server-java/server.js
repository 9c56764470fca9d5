const net = require('net');

net.createServer((socket) => {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (text) => {
    rest += text;
    const lines = rest.split('\n');
    rest = lines.pop();
    for (const line of lines) socket.write('you said ' + line + '\n');
  });
}).listen(Number(process.argv[2]));
