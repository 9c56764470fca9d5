const http = require('http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const at = (path) => ({ host: '127.0.0.1', port: +process.argv[2], path, agent });

function healthy() {
  return new Promise((resolve, reject) => {
    http.get(at('/health'), (res) => resolve(res.statusCode === 200)).on('error', reject);
  });
}

function fetchJobs() {
  return new Promise((resolve, reject) => {
    http.get(at('/jobs'), (res) => {
      const parts = [];
      res.on('data', (d) => parts.push(d));
      res.on('end', () => resolve(JSON.parse(Buffer.concat(parts))));
    }).on('error', reject);
  });
}

(async () => {
  if (!(await healthy())) throw new Error('server is not well');
  console.log('server is well');
  for (const job of await fetchJobs()) console.log('job', job.id, job.what);
  agent.destroy();
})();
