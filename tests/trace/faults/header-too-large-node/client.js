const http = require('http');

const cookie = 'session=' + 'x'.repeat(20000);
http.get({ port: Number(process.argv[2]), headers: { cookie } }, (res) => {
  console.log(res.statusCode);
  res.resume();
}).on('error', (e) => console.log(e.code));
