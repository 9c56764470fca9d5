import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

public class GameServer {
    static class Game {
        int trial = 1;
        int errors = 0;
        Set<String> letters = new HashSet<>();
        String lastRequest = "";
        String lastReply = "";
    }

    static String word;
    static int maxErrors;
    static final Map<String, Game> games = new HashMap<>();

    static String reply(String[] words, String request) {
        String command = words[0];
        String player = words.length > 1 ? words[1] : "";
        Game game = games.get(player);
        switch (command) {
            case "SNG":
                if (game != null && game.trial > 1)
                    return "RSG NOK";
                games.put(player, new Game());
                return "RSG OK " + word.length() + " " + maxErrors;
            case "QUT":
                return games.remove(player) != null ? "RQT OK" : "RQT NOK";
            case "PLG":
            case "PWG":
                String tag = command.equals("PLG") ? "RLG " : "RWG ";
                if (game == null)
                    return tag + "ERR";
                if (request.equals(game.lastRequest))
                    return game.lastReply;
                game.lastReply = guess(game, tag, words[2], Integer.parseInt(words[3]), player);
                game.lastRequest = request;
                return game.lastReply;
            default:
                return "ERR";
        }
    }

    static String guess(Game game, String tag, String guess, int trial, String player) {
        if (trial != game.trial)
            return tag + "INV " + game.trial;
        if (tag.equals("RWG ")) {
            game.trial++;
            return word.equals(guess) ? tag + "WIN " + trial : wrong(game, tag, trial);
        }
        if (!game.letters.add(guess))
            return tag + "DUP " + trial;
        game.trial++;
        if (!word.contains(guess))
            return wrong(game, tag, trial);
        StringBuilder places = new StringBuilder();
        int count = 0;
        boolean complete = true;
        for (int at = 0; at < word.length(); at++) {
            String letter = word.substring(at, at + 1);
            if (letter.equals(guess)) {
                places.append(' ').append(at + 1);
                count++;
            }
            complete &= game.letters.contains(letter);
        }
        return complete ? tag + "WIN " + trial : tag + "OK " + trial + " " + count + places;
    }

    static String wrong(Game game, String tag, int trial) {
        return tag + (++game.errors > maxErrors ? "OVR " : "NOK ") + trial;
    }

    public static void main(String[] args) throws Exception {
        word = Files.readString(Path.of(args[0])).split("\\s")[0];
        maxErrors = word.length() <= 6 ? 7 : 8;
        DatagramSocket socket = new DatagramSocket(Integer.parseInt(args[2]), InetAddress.getByName("127.0.0.1"));
        while (true) {
            DatagramPacket packet = new DatagramPacket(new byte[1024], 1024);
            socket.receive(packet);
            String request = new String(packet.getData(), 0, packet.getLength()).trim();
            byte[] reply = (reply(request.split(" "), request) + "\n").getBytes();
            socket.send(new DatagramPacket(reply, reply.length, packet.getSocketAddress()));
        }
    }
}
