import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        Socket socket = new Socket("localhost", Integer.parseInt(args[0]));
        byte[] picture = new byte[20000];
        OutputStream out = socket.getOutputStream();
        out.write(picture);
        out.flush();
        socket.shutdownOutput(); // so that the server knows that the file is complete

        BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream()));
        System.out.println("Server says: " + in.readLine());
        socket.close();
    }
}
