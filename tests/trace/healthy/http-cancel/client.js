const http = require('http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const req = http.request({ host: '127.0.0.1', port: +process.argv[2], method, path, agent }, (res) => {
      let text = '';
      res.setEncoding('utf8');
      res.on('data', (d) => { text += d; });
      res.on('end', () => resolve(`${res.statusCode} ${text}`));
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end(body);
  });
}

function watch(items) {
  return new Promise((resolve, reject) => {
    const stop = new AbortController();
    let seen = 0;
    const req = http.get({ host: '127.0.0.1', port: +process.argv[2], path: '/feed', agent, signal: stop.signal }, (res) => {
      res.setEncoding('utf8');
      res.on('data', (d) => {
        seen += d.split('\n').length - 1;
        if (seen >= items) stop.abort();
      });
      res.on('error', (e) => (e.name === 'AbortError' || e.code === 'ECONNRESET' ? resolve(seen) : reject(e)));
    });
    req.on('error', (e) => (e.name === 'AbortError' ? resolve(seen) : reject(e)));
  });
}

(async () => {
  console.log(await call('GET', '/'));
  console.log('watched', await watch(5));
  await new Promise((r) => setTimeout(r, 1000));
  console.log(await call('POST', '/upload', Buffer.alloc(300000, 'z')));
  console.log(await call('GET', '/'));
  console.log(await call('POST', '/shutdown'));
  agent.destroy();
})().catch((e) => { console.log('failed:', e.message); process.exitCode = 1; });
