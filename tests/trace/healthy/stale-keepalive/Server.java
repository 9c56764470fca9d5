import java.io.*;
import java.net.*;
import java.util.*;
import java.util.concurrent.*;

public class Server {
    static int port;

    static final Map<String, String> map = new ConcurrentHashMap<>(Map.of("host", "db1", "port", "5432", "user", "app"));

    static void serve(Socket s) {
        try (s) {
            s.setSoTimeout(500);
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            PrintWriter out = new PrintWriter(s.getOutputStream(), true);
            String line;
            while ((line = in.readLine()) != null) {
                if (line.startsWith("GET "))
                    out.println("VALUE " + map.getOrDefault(line.substring(4), ""));
                else
                    out.println("ERROR");
            }
        } catch (SocketTimeoutException e) {
            System.out.println("idle connection closed");
        } catch (IOException e) {
            System.out.println("connection lost: " + e.getMessage());
        }
    }

    public static void main(String[] args) throws Exception {
        port = Integer.parseInt(args[0]);
        ExecutorService pool = Executors.newCachedThreadPool();
        try (ServerSocket ss = new ServerSocket(port, 50, InetAddress.getByName("127.0.0.1"))) {
            while (true) {
                Socket s = ss.accept();
                pool.execute(() -> serve(s));
            }
        }
    }
}
