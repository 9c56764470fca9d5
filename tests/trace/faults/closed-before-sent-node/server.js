const dgram = require('dgram');
const s = dgram.createSocket('udp4');
let n = 0;
s.on('message', (m, r) => { console.log(++n, m.toString(), r.port); });
s.bind(Number(process.argv[2]), '127.0.0.1');
