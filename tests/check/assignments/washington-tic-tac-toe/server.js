const net = require("node:net");
const readline = require("node:readline");

const ROWS = ["123", "456", "789", "147", "258", "369", "159", "357"];
const games = new Map();
let sessions = 0;

function tell(game, text) {
    for (const player of game.players) player.say(text);
}

function finish(id, game, winner) {
    tell(game, `TERM ${id} ${winner ? `${winner.name} ` : ""}KTHXBYE`);
    games.delete(id);
}

function move(player, id, place) {
    const game = games.get(id);
    if (!game || game.players[game.turn] !== player || game.board[place - 1] !== "*") return;
    const mark = "XO"[game.turn];
    game.board[place - 1] = mark;
    game.turn = 1 - game.turn;
    const [x, o] = game.players;
    const next = game.players[game.turn];
    tell(game, `BORD ${id} ${x.name} ${o.name} ${next.name} |${game.board.join("|")}|`);
    if (ROWS.some((row) => [...row].every((at) => game.board[at - 1] === mark))) finish(id, game, player);
    else if (!game.board.includes("*")) finish(id, game, null);
}

const commands = {
    HELO(player, _version, name) {
        player.name = name;
        player.say(`SESS 1 s${++sessions}`);
    },
    CREA(player) {
        const id = `g${++sessions}`;
        games.set(id, { players: [player], board: Array(9).fill("*"), turn: 0 });
        player.say(`JOND ${player.name} ${id}`);
    },
    JOIN(player, id) {
        const game = games.get(id);
        if (!game || game.players.length > 1) return;
        game.players.push(player);
        player.say(`JOND ${player.name} ${id}`);
        tell(game, `YRMV ${id} ${game.players[0].name}`);
    },
    MOVE: move,
    QUIT(player, id) {
        const game = games.get(id);
        if (game) finish(id, game, game.players.find((other) => other !== player));
    },
    GDBY(player) {
        player.socket.end();
    },
};

net.createServer({ noDelay: true }, (socket) => {
    const player = { name: "", socket, say: (text) => socket.write(`${text}\r\n`) };
    socket.on("error", () => {});
    const lines = readline.createInterface({ input: socket });
    lines.on("error", () => {});
    lines.on("line", (line) => {
        const [word, ...rest] = line.trim().split(/\s+/);
        commands[word]?.(player, ...rest);
    });
}).listen(Number(process.argv[2]), "127.0.0.1", 511);
