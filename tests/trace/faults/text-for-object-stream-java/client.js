const net = require('net');

const socket = net.connect(Number(process.argv[2]), 'localhost', () => socket.write('start engine\n'));
socket.on('data', (d) => console.log(d.toString()));
socket.on('close', () => console.log('closed'));
