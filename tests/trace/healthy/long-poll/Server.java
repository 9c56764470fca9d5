import java.io.*;
import java.net.*;
import java.util.*;

public class Server {
    static int port;

    static final List<String> events = new ArrayList<>();

    static synchronized void publish(String e) {
        events.add(e);
        Server.class.notifyAll();
    }

    static synchronized String after(int seen, long millis) throws InterruptedException {
        long end = System.currentTimeMillis() + millis;
        while (events.size() <= seen) {
            long left = end - System.currentTimeMillis();
            if (left <= 0)
                return "NONE";
            Server.class.wait(left);
        }
        return "EVENT " + events.get(seen);
    }

    static void serve(Socket s) {
        try (s) {
            s.setTcpNoDelay(true);
            s.setSoTimeout(5000);
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream(), "UTF-8"));
            Writer out = new OutputStreamWriter(s.getOutputStream(), "UTF-8");
            String line;
            while ((line = in.readLine()) != null) {
                out.write(after(Integer.parseInt(line.substring(5)), 700) + "\n");
                out.flush();
            }
        } catch (SocketTimeoutException e) {
            System.out.println("idle client closed");
        } catch (IOException | InterruptedException | RuntimeException e) {
            System.out.println("client dropped: " + e);
        }
    }

    public static void main(String[] args) throws Exception {
        port = Integer.parseInt(args[0]);
        Thread clock = new Thread(() -> {
            try {
                for (int i = 1; ; i++) {
                    Thread.sleep(1000);
                    publish("tick-" + i);
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        });
        clock.setDaemon(true);
        clock.start();
        try (ServerSocket ss = new ServerSocket(port, 50, InetAddress.getByName("127.0.0.1"))) {
            while (true) {
                Socket s = ss.accept();
                new Thread(() -> serve(s)).start();
            }
        }
    }
}
