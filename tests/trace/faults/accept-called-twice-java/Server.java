import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws IOException {
        ServerSocket serverSocket = new ServerSocket(Integer.parseInt(args[0]));
        System.out.println("Waiting for a client");
        BufferedReader in = new BufferedReader(new InputStreamReader(serverSocket.accept().getInputStream()));
        PrintWriter out = new PrintWriter(serverSocket.accept().getOutputStream(), true);
        System.out.println("Connected");
        String line;
        while ((line = in.readLine()) != null) {
            out.println(line.toUpperCase());
        }
    }
}
