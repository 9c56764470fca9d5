import java.io.*;
import java.net.*;

public class Client implements Closeable {
    static int port;

    Socket s;
    BufferedReader in;
    int opened;

    void open() throws IOException {
        s = new Socket();
        s.connect(new InetSocketAddress("127.0.0.1", port), 1000);
        s.setSoTimeout(3000);
        in = new BufferedReader(new InputStreamReader(s.getInputStream()));
        opened++;
    }

    public void close() throws IOException {
        if (s != null)
            s.close();
        s = null;
    }

    String get(String key) throws IOException {
        for (int attempt = 0; ; attempt++) {
            boolean reused = s != null;
            try {
                if (!reused)
                    open();
                s.getOutputStream().write(("GET " + key + "\n").getBytes());
                String line = in.readLine();
                if (line == null)
                    throw new EOFException("closed by server");
                return line.substring(6);
            } catch (SocketTimeoutException e) {
                close();
                throw e;
            } catch (IOException e) {
                close();
                if (!reused || attempt > 0)
                    throw e;
            }
        }
    }

    public static void main(String[] args) throws Exception {
        port = Integer.parseInt(args[0]);
        try (Client c = new Client()) {
            System.out.println("host " + c.get("host"));
            System.out.println("port " + c.get("port"));
            Thread.sleep(900);
            System.out.println("user " + c.get("user"));
            Thread.sleep(900);
            System.out.println("host " + c.get("host"));
            System.out.println(c.opened + " connections used");
        }
    }
}
