import java.io.*;
import java.net.*;

public class Client {
    static int port;

    static boolean session(String[] symbols, int pause) throws Exception {
        try (Socket s = new Socket("127.0.0.1", port)) {
            s.setSoTimeout(5000);
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            PrintWriter out = new PrintWriter(s.getOutputStream(), true);
            for (String sym : symbols) {
                out.println(sym);
                String r = in.readLine();
                if (r == null) {
                    System.err.println(sym + ": server closed the connection");
                    return false;
                }
                System.out.println(r);
                Thread.sleep(pause);
            }
            return true;
        } catch (IOException e) {
            System.err.println("session: " + e.getMessage());
            return false;
        }
    }

    public static void main(String[] args) throws Exception {
        port = Integer.parseInt(args[0]);
        boolean ok = session(new String[] {"ACME"}, 0);
        ok &= session(new String[] {"INIT", "GLOBX", "HOOLI"}, 700);
        System.exit(ok ? 0 : 1);
    }
}
