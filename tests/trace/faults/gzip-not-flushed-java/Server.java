import java.io.*;
import java.net.*;
import java.util.zip.GZIPOutputStream;

public class Server {
    static int port;

    public static void main(String[] args) throws IOException {
        port = Integer.parseInt(args[0]);
        String[] stock = {"bolts 120", "nuts 44", "screws 9", "washers 310"};
        try (ServerSocket ss = new ServerSocket()) {
            ss.setReuseAddress(true);
            ss.bind(new InetSocketAddress("127.0.0.1", port));
            try (Socket s = ss.accept()) {
                BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
                PrintWriter out = new PrintWriter(new OutputStreamWriter(
                        new GZIPOutputStream(s.getOutputStream())), true);
                String q;
                while ((q = in.readLine()) != null && !q.equals("QUIT")) {
                    for (String row : stock) {
                        if (row.startsWith(q)) out.println(row);
                    }
                    out.println(".");
                    out.flush();
                }
                out.close();
            }
        }
    }
}
