const net = require('net');

let answer = null;
const socket = net.connect(Number(process.argv[2]), 'localhost', () => {
  socket.write('ping\n');
  while (answer === null) {
    // wait for the answer
  }
  console.log(answer);
});
socket.on('data', (d) => { answer = d.toString(); });
