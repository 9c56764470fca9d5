import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws IOException {
        try (ServerSocket listener = new ServerSocket(Integer.parseInt(args[0])); Socket conn = listener.accept()) {
            DataInputStream in = new DataInputStream(new BufferedInputStream(conn.getInputStream()));
            DataOutputStream out = new DataOutputStream(new BufferedOutputStream(conn.getOutputStream()));
            try {
                while (true) {
                    byte[] body = new byte[in.readInt()];
                    in.readFully(body);
                    out.writeInt(body.length);
                    out.write(body);
                    out.flush();
                }
            } catch (EOFException e) {
                System.out.println("done");
            }
        }
    }
}
