import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        Socket socket = new Socket("127.0.0.1", Integer.parseInt(args[0]));
        socket.setSoTimeout(1500);
        PrintWriter out = new PrintWriter(socket.getOutputStream());
        out.println("GET /news HTTP/1.1");
        out.println("Host: localhost");
        out.println();
        out.flush();
        BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream()));
        System.out.println(in.readLine());
    }
}
