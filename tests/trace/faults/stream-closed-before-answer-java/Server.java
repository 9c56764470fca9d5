import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws IOException {
        ServerSocket server = new ServerSocket(Integer.parseInt(args[0]));
        Socket socket = server.accept();
        String name;
        try (BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream()))) {
            name = in.readLine();
        }
        try (PrintWriter out = new PrintWriter(socket.getOutputStream(), true)) {
            out.println("Hello " + name);
        }
    }
}
