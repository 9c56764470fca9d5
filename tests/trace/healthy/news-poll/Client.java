import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;

public class Client {
    static int port;

    static class Link implements Closeable {
        final Socket s = new Socket();
        final BufferedReader in;
        final Writer out;

        Link() throws IOException {
            s.connect(new InetSocketAddress("127.0.0.1", port), 2000);
            s.setSoTimeout(4000);
            in = new BufferedReader(new InputStreamReader(s.getInputStream(), StandardCharsets.UTF_8));
            out = new OutputStreamWriter(s.getOutputStream(), StandardCharsets.UTF_8);
        }

        String ask(String q) throws IOException {
            out.write(q + "\n");
            out.flush();
            String r = in.readLine();
            if (r == null) throw new EOFException("server closed");
            return r;
        }

        public void close() throws IOException { s.close(); }
    }

    public static void main(String[] a) throws Exception {
        port = Integer.parseInt(a[0]);
        Thread author = new Thread(() -> {
            try (Link l = new Link()) {
                Thread.sleep(1400);
                l.ask("POST storm warning");
                Thread.sleep(600);
                l.ask("POST all clear");
                l.ask("QUIT");
            } catch (Exception e) {
                System.err.println("author: " + e);
            }
        });
        author.start();
        int got = 0, empty = 0;
        try (Link l = new Link()) {
            while (got < 2 && empty < 10) {
                String r = l.ask("POLL 800");
                System.out.println(r);
                if (r.startsWith("EVENT ")) got++;
                else empty++;
            }
            l.ask("QUIT");
        }
        author.join();
        System.exit(got == 2 ? 0 : 1);
    }
}
