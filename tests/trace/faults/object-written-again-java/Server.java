import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        try (ServerSocket ss = new ServerSocket(Integer.parseInt(args[0]), 5, InetAddress.getByName("127.0.0.1"));
             Socket s = ss.accept()) {
            ObjectOutputStream out = new ObjectOutputStream(new BufferedOutputStream(s.getOutputStream()));
            Score score = new Score("Rovers");
            int[] goals = {3, 7, 1, 3};
            for (int g : goals) {
                score.points += g;
                System.out.println("sending " + score);
                out.writeObject(score);
                out.flush();
                Thread.sleep(200);
            }
            out.writeObject(null);
            out.flush();
        }
    }
}

class Score implements Serializable {
    private static final long serialVersionUID = 1L;
    public String team;
    public int points;

    public Score(String team) { this.team = team; }
    public String toString() { return team + ":" + points; }
}
