const http = require('http');

const req = http.request({ host: '127.0.0.1', port: Number(process.argv[2]), method: 'POST', headers: { 'Content-Type': 'application/json' } }, (res) => {
  res.on('data', (d) => console.log(d.toString()));
});
req.on('error', (e) => console.log('error', e.code));
req.write(JSON.stringify({ items: [1, 2, 3] }));
req.end();
