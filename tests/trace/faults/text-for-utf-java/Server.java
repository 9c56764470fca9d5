import java.io.*;
import java.net.*;
public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket ss = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getByName("127.0.0.1"));
        for (int n = 1; ; n++) {
            try (Socket s = ss.accept()) {
                DataInputStream in = new DataInputStream(new BufferedInputStream(s.getInputStream()));
                DataOutputStream out = new DataOutputStream(s.getOutputStream());
                String name = in.readUTF();
                out.writeUTF("Good day " + name + ", you are visitor " + n);
                out.flush();
            } catch (EOFException e) { System.err.println("early end"); }
        }
    }
}
