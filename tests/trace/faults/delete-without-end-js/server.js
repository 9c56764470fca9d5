const http = require("http");
const notes = new Map([["1", "milk"], ["2", "bread"]]);
http.createServer((request, response) => {
  const id = request.url.split("/")[2];
  if (request.method === "GET") {
    response.end(notes.get(id) + "\n");
  } else if (request.method === "DELETE") {
    notes.delete(id);
    response.statusCode = 204;
  } else {
    response.writeHead(405).end();
  }
}).listen(Number(process.argv[2]), "127.0.0.1");
