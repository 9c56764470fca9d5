import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        try (Socket s = new Socket("127.0.0.1", Integer.parseInt(args[0]))) {
            ObjectInputStream in = new ObjectInputStream(new BufferedInputStream(s.getInputStream()));
            Score sc;
            int last = 0;
            while ((sc = (Score) in.readObject()) != null) {
                System.out.println("board " + sc);
                last = sc.points;
            }
            System.out.println("final " + last);
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
