const net = require("net");
const readline = require("readline");

let turn = Promise.resolve(); // the games share one board: one after another

async function play(socket, lines) {
  socket.write("your move?\n");
  const { value: move } = await lines.next();
  socket.end(`you played ${move}\n`);
}

net.createServer((socket) => {
  const lines = readline.createInterface({ input: socket })[Symbol.asyncIterator]();
  socket.on("error", () => {});
  lines.next().then(({ value }) => {
    if (value === "join") turn = turn.then(() => play(socket, lines));
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
