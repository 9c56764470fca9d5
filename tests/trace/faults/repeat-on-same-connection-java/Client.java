import java.io.*;
import java.net.*;

public class Client {
    static BufferedReader in;
    static PrintWriter out;

    static String ask(String symbol) throws IOException {
        for (int attempt = 1; attempt <= 3; attempt++) {
            out.println(symbol);
            try {
                return in.readLine();
            } catch (SocketTimeoutException e) {
                System.out.println(symbol + ": attempt " + attempt + " timed out");
            }
        }
        throw new IOException("no quote for " + symbol);
    }

    public static void main(String[] args) throws Exception {
        try (Socket s = new Socket("127.0.0.1", Integer.parseInt(args[0]))) {
            s.setSoTimeout(600);
            in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            out = new PrintWriter(s.getOutputStream(), true);
            for (String symbol : new String[] {"ACME", "GLOBEX", "INITECH"})
                System.out.println(symbol + " = " + ask(symbol));
        }
    }
}
