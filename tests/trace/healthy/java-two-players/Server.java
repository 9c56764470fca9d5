import java.io.*;
import java.net.*;

/** A game for two: it waits for both players, then each gets what the other one said. */
public class Server {
    public static void main(String[] args) throws IOException {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        Socket one = listener.accept();
        Socket two = listener.accept();
        BufferedReader fromOne = new BufferedReader(new InputStreamReader(one.getInputStream()));
        BufferedReader fromTwo = new BufferedReader(new InputStreamReader(two.getInputStream()));
        new PrintWriter(two.getOutputStream(), true).println(fromOne.readLine());
        new PrintWriter(one.getOutputStream(), true).println(fromTwo.readLine());
        one.close();
        two.close();
    }
}
