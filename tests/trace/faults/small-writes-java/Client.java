import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws IOException {
        try (Socket socket = new Socket("127.0.0.1", Integer.parseInt(args[0]))) {
            DataOutputStream out = new DataOutputStream(socket.getOutputStream());
            DataInputStream in = new DataInputStream(socket.getInputStream());
            for (int i = 0; i < 40; i++) {
                byte[] body = ("request " + i).getBytes();
                out.writeInt(body.length);
                out.write(body);
                in.readFully(new byte[body.length]);
            }
        }
    }
}
