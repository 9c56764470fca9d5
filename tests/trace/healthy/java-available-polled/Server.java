import java.io.*;
import java.net.*;
public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket ss = new ServerSocket(Integer.parseInt(args[0]), 10, InetAddress.getByName("127.0.0.1"));
        while (true) {
            try (Socket s = ss.accept()) {
                InputStream in = s.getInputStream();
                StringBuilder line = new StringBuilder();
                while (line.indexOf("\n") < 0) {
                    if (in.available() == 0) { Thread.sleep(50); continue; }
                    line.append((char) in.read());
                }
                s.getOutputStream().write(line.toString().toUpperCase().getBytes());
            }
        }
    }
}
