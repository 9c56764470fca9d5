const net = require('net');
const crypto = require('crypto');
const { Readable } = require('stream');

const photo = crypto.randomBytes(180000);
photo.write('RIFF\0\0\0\0WEBP');
const sum = crypto.createHash('md5').update(photo).digest('hex');
const pieces = [];
for (let i = 0; i < photo.length; i += 16384) pieces.push(photo.subarray(i, i + 16384));

const sock = net.connect({ port: +process.argv[2], host: '127.0.0.1', allowHalfOpen: true }, () => {
  Readable.from(pieces).pipe(sock);
});
let answer = '';
sock.setEncoding('utf8');
sock.on('data', (d) => { answer += d; });
sock.on('error', (e) => { console.error('upload failed:', e.code); process.exitCode = 1; });
sock.on('end', () => {
  const [, size, got] = answer.trim().split(' ');
  if (got === sum) {
    console.log('uploaded', size);
  } else {
    console.error(`checksum differs: sent ${photo.length}, server has ${size}`);
    process.exitCode = 1;
  }
});
