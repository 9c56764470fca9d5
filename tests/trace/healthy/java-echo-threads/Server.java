import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws IOException {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        while (true) {
            Socket conn = listener.accept();
            new Thread(() -> {
                try (conn; BufferedReader in = new BufferedReader(new InputStreamReader(conn.getInputStream()));
                     PrintWriter out = new PrintWriter(conn.getOutputStream(), true)) {
                    String line;
                    while ((line = in.readLine()) != null) out.println("echo " + line);
                } catch (IOException e) {
                    System.err.println(e);
                }
            }).start();
        }
    }
}
