const net = require('net');
const c = net.connect(Number(process.argv[2]), '127.0.0.1');
const body = '21.5';
c.write('POST /t HTTP/1.1\r\n' +
  'Content-Type: text/plain\r\n' +
  'Content-Length: ' + body.length + '\r\n' +
  'Connection: close\r\n\r\n' + body);
let answer = '';
c.on('data', (d) => { answer += d; });
c.on('end', () => {
  if (!answer.includes('200')) { console.log('failed:', answer.split('\r\n')[0]); process.exitCode = 1; }
});
