import java.io.*;
import java.net.*;
import java.util.*;

public class Server {
    static final Map<String, String> QUOTES = Map.of("ACME", "14.20", "GLOBEX", "88.75", "INITECH", "3.05");
    static final Set<String> cached = Collections.synchronizedSet(new HashSet<>());

    static String quote(String symbol) throws InterruptedException {
        if (cached.add(symbol)) Thread.sleep(symbol.equals("ACME") ? 900 : 20);
        return QUOTES.getOrDefault(symbol, "unknown");
    }

    static void serve(Socket s) {
        try (s) {
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            PrintWriter out = new PrintWriter(s.getOutputStream(), true);
            for (String symbol; (symbol = in.readLine()) != null; ) out.println(quote(symbol));
        } catch (IOException | InterruptedException e) {
            System.out.println("session ended: " + e);
        }
    }

    public static void main(String[] args) throws Exception {
        try (ServerSocket ss = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getByName("127.0.0.1"))) {
            while (true) {
                Socket s = ss.accept();
                new Thread(() -> serve(s)).start();
            }
        }
    }
}
