import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        while (true) {
            Socket s = listener.accept();
            new Thread(() -> {
                try (s) {
                    ObjectInputStream in = new ObjectInputStream(s.getInputStream());
                    String command = (String) in.readObject();
                    s.getOutputStream().write(("done: " + command + "\n").getBytes());
                } catch (Exception e) {
                    System.out.println(e.getMessage());
                }
            }).start();
        }
    }
}
