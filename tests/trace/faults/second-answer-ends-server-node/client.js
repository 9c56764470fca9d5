const http = require('http');

function get(headers, done) {
  http.get({ port: Number(process.argv[2]), path: '/users/1', headers, agent: false }, (res) => {
    let body = '';
    res.on('data', (d) => (body += d));
    res.on('end', () => { console.log(res.statusCode, body); done(); });
  }).on('error', (e) => console.log('failed:', e.code));
}

get({}, () => setTimeout(() => get({ authorization: 'Basic YTpi' }, () => {}), 300));
