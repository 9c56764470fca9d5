import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.*;

public class Server {
    static int port;

    static final LinkedBlockingQueue<String> events = new LinkedBlockingQueue<>();

    static void serve(Socket s) {
        try (s; BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream(), StandardCharsets.UTF_8));
             Writer out = new OutputStreamWriter(s.getOutputStream(), StandardCharsets.UTF_8)) {
            String line;
            while ((line = in.readLine()) != null) {
                String[] w = line.split(" ", 2);
                if (w[0].equals("POLL")) {
                    String e = events.poll(Long.parseLong(w[1]), TimeUnit.MILLISECONDS);
                    out.write(e == null ? "NOTHING\n" : "EVENT " + e + "\n");
                } else if (w[0].equals("POST")) {
                    events.add(w[1]);
                    out.write("TAKEN\n");
                } else {
                    out.write("BYE\n");
                    out.flush();
                    return;
                }
                out.flush();
            }
        } catch (IOException | InterruptedException e) {
            System.out.println("connection ended: " + e.getMessage());
        }
    }

    public static void main(String[] a) throws Exception {
        port = Integer.parseInt(a[0]);
        ExecutorService pool = Executors.newFixedThreadPool(4);
        try (ServerSocket ss = new ServerSocket()) {
            ss.setReuseAddress(true);
            ss.bind(new InetSocketAddress("127.0.0.1", port), 50);
            for (int i = 0; i < 2; i++) {
                Socket s = ss.accept();
                pool.execute(() -> serve(s));
            }
        }
        pool.shutdown();
        pool.awaitTermination(30, TimeUnit.SECONDS);
    }
}
