import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws IOException {
        try (Socket socket = new Socket("127.0.0.1", Integer.parseInt(args[0]))) {
            socket.getOutputStream().write("a log line\n".getBytes());
            socket.shutdownOutput();
            System.out.println(socket.getInputStream().read()); // -1: all was stored
        }
    }
}
