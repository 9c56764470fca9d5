import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket server = new ServerSocket(Integer.parseInt(args[0]));
        Socket socket = server.accept();
        InputStream in = socket.getInputStream();
        ByteArrayOutputStream file = new ByteArrayOutputStream();
        byte[] buffer = new byte[4096];
        int n;
        while ((n = in.read(buffer)) > 0) {
            file.write(buffer, 0, n);
        }
        PrintWriter out = new PrintWriter(socket.getOutputStream(), true);
        out.println("Received " + file.size() + " bytes");
        socket.close();
        server.close();
    }
}
