const https = require("https");

const agent = new https.Agent({ keepAlive: true, rejectUnauthorized: false });
function get(path, then) {
  https.get({ host: "127.0.0.1", port: Number(process.argv[2]), path, agent }, (response) => {
    let size = 0;
    response.on("data", (chunk) => (size += chunk.length));
    response.on("end", () => {
      console.log(path, size);
      setTimeout(then, 100);
    });
  });
}
get("/one", () => get("/two", () => agent.destroy()));
