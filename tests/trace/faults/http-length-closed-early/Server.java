import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws IOException {
        ServerSocket server = new ServerSocket(Integer.parseInt(args[0]));
        while (true) {
            Socket s = server.accept();
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            for (String line = in.readLine(); line != null && !line.isEmpty(); line = in.readLine()) {
            }
            String body = "{\"status\": \"fine\"}\n";
            PrintWriter out = new PrintWriter(s.getOutputStream());
            out.print("HTTP/1.1 200 OK\r\n");
            out.print("Content-Length: " + (body.length() + 2) + "\r\n\r\n");
            out.print(body);
            out.flush();
            s.close();
        }
    }
}
