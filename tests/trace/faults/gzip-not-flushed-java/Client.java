import java.io.*;
import java.net.*;
import java.util.zip.GZIPInputStream;

public class Client {
    static int port;

    static String line(InputStream in) throws IOException {
        StringBuilder b = new StringBuilder();
        int c;
        while ((c = in.read()) != -1 && c != '\n') b.append((char) c);
        return c == -1 && b.length() == 0 ? null : b.toString();
    }

    public static void main(String[] args) throws IOException {
        port = Integer.parseInt(args[0]);
        try (Socket s = new Socket("127.0.0.1", port)) {
            PrintWriter out = new PrintWriter(s.getOutputStream(), true);
            InputStream in = null;
            for (String q : new String[] {"bolts", "s", "nuts"}) {
                out.println(q);
                if (in == null) in = new GZIPInputStream(s.getInputStream());
                String row;
                while ((row = line(in)) != null && !row.equals(".")) {
                    System.out.println(q + ": " + row);
                }
            }
            out.println("QUIT");
        }
    }
}
