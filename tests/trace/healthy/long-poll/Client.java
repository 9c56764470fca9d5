import java.io.*;
import java.net.*;

public class Client {
    static int port;

    static Socket dial() throws Exception {
        for (int i = 0; ; i++) {
            Socket s = new Socket();
            try {
                s.connect(new InetSocketAddress("127.0.0.1", port), 1000);
                s.setSoTimeout(3000);
                s.setTcpNoDelay(true);
                return s;
            } catch (ConnectException e) {
                s.close();
                if (i == 20)
                    throw e;
                Thread.sleep(200);
            }
        }
    }

    public static void main(String[] args) throws Exception {
        port = Integer.parseInt(args[0]);
        int seen = 0, empty = 0;
        try (Socket s = dial()) {
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream(), "UTF-8"));
            OutputStream out = s.getOutputStream();
            while (seen < 3) {
                out.write(("POLL " + seen + "\n").getBytes("UTF-8"));
                String reply = in.readLine();
                if (reply == null)
                    throw new EOFException("server closed");
                if (reply.equals("NONE")) {
                    empty++;
                    continue;
                }
                seen++;
                System.out.println(reply);
            }
        }
        System.out.println(seen + " events, " + empty + " empty polls");
    }
}
