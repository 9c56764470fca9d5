const http = require("http");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function check(path, done) {
  http.get({ port: Number(process.argv[2]), host: "127.0.0.1", path, agent }, (response) => {
    console.log(path, response.statusCode);
    done();
  });
}

check("/first", () => check("/second", () => agent.destroy()));
setInterval(() => {}, 60_000); // reports once a minute
