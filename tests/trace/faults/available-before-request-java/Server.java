import java.io.*;
import java.net.*;
public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket ss = new ServerSocket(Integer.parseInt(args[0]), 10, InetAddress.getByName("127.0.0.1"));
        int id = 0;
        while (true) {
            try (Socket s = ss.accept()) {
                InputStream in = s.getInputStream();
                StringBuilder request = new StringBuilder();
                while (in.available() > 0) request.append((char) in.read());
                System.out.println("request " + ++id + ": " + request);
                if (request.toString().startsWith("ECHO ")) s.getOutputStream().write(request.substring(5).getBytes());
            }
        }
    }
}
