const http = require("http");
const agent = new http.Agent({ keepAlive: true });
function ask(left) {
  const options = { port: Number(process.argv[2]), host: "127.0.0.1", method: "POST", path: `/${left}`, agent };
  const request = http.request(options, (response) => {
    response.resume();
    response.on("end", () => (left ? ask(left - 1) : agent.destroy()));
  });
  request.end("x".repeat(10000 * left));
}
ask(3);
