import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws IOException {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        while (true) {
            Socket s = listener.accept();
            DataInputStream in = new DataInputStream(s.getInputStream());
            DataOutputStream out = new DataOutputStream(s.getOutputStream());
            int length = in.readUnsignedByte();
            byte[] data = new byte[length];
            in.readFully(data);
            out.writeUTF("stored " + data.length);
            s.close();
        }
    }
}
