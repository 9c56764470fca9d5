import java.io.*;
import java.net.*;
import java.util.*;

public class Server {
    private final Map<String, Socket> users = new HashMap<>();

    private synchronized String register(Socket s, BufferedReader in) throws IOException {
        String name = in.readLine();
        users.put(name, s);
        return name;
    }

    private void serve(Socket s) {
        try (s) {
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            OutputStream out = s.getOutputStream();
            out.write("Who are you?\n".getBytes());
            out.write(("Hello, " + register(s, in) + "\n").getBytes());
        } catch (IOException e) {
            e.printStackTrace();
        }
    }

    public static void main(String[] args) throws IOException {
        Server server = new Server();
        try (ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getByName("127.0.0.1"))) {
            while (true) {
                Socket s = listener.accept();
                new Thread(() -> server.serve(s)).start();
            }
        }
    }
}
