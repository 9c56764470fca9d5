import java.io.*;
import java.net.*;
import java.util.concurrent.*;

public class Server {
    static int port;

    static Void converse(Socket s) throws IOException {
        try {
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            PrintWriter out = new PrintWriter(s.getOutputStream(), true);
            String line;
            while ((line = in.readLine()) != null) {
                out.println("QUOTE " + line + " " + (line.hashCode() & 0xff));
            }
        } catch (IOException e) {
            System.out.println("worker: " + e);
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        port = Integer.parseInt(args[0]);
        ExecutorService pool = Executors.newFixedThreadPool(2);
        try (ServerSocket ss = new ServerSocket()) {
            ss.setReuseAddress(true);
            ss.bind(new InetSocketAddress("127.0.0.1", port));
            for (int i = 0; i < 2; i++) {
                try (Socket s = ss.accept()) {
                    Future<Void> f = pool.submit(() -> converse(s));
                    f.get(300, TimeUnit.MILLISECONDS);
                } catch (TimeoutException e) {
                    System.out.println("long conversation, goes on in the pool");
                }
            }
        }
        pool.shutdown();
    }
}
