import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getByName("127.0.0.1"));
        while (true) {
            try (Socket connection = listener.accept()) {
                byte[] buffer = new byte[4096];
                int n = connection.getInputStream().read(buffer);
                String request = new String(buffer, 0, Math.max(n, 0), "US-ASCII");
                OutputStream out = connection.getOutputStream();
                if (request.startsWith("GET ")) {
                    out.write("HTTP/1.0 200 OK\r\n\r\nhello\n".getBytes());
                } else {
                    out.write("HTTP/1.0 400 Bad Request\r\n\r\nunknown method\n".getBytes());
                }
            }
        }
    }
}
