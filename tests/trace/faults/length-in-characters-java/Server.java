import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;

public class Server {
    public static void main(String[] args) throws Exception {
        try (ServerSocket server = new ServerSocket(Integer.parseInt(args[0]), 5, InetAddress.getByName("127.0.0.1"));
             Socket s = server.accept()) {
            DataInputStream in = new DataInputStream(new BufferedInputStream(s.getInputStream()));
            DataOutputStream out = new DataOutputStream(s.getOutputStream());
            int entries = in.readInt();
            for (int i = 0; i < entries; i++) {
                int length = in.readInt();
                if (length < 0 || length > 65536)
                    throw new IOException("bad entry length " + length);
                byte[] text = new byte[length];
                in.readFully(text);
                System.out.println("entry " + i + ": " + new String(text, StandardCharsets.UTF_8));
            }
            out.writeInt(entries);
        }
    }
}
