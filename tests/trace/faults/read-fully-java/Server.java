import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws IOException {
        try (ServerSocket server = new ServerSocket(Integer.parseInt(args[0]), 5, InetAddress.getLoopbackAddress());
             Socket s = server.accept()) {
            DataInputStream in = new DataInputStream(s.getInputStream());
            byte[] login = new byte[32];
            in.readFully(login);
            s.getOutputStream().write("welcome\n".getBytes());
        }
    }
}
