import java.io.*;
import java.net.*;
public class Server {
    public static void main(String[] args) throws Exception {
        try (ServerSocket l = new ServerSocket(Integer.parseInt(args[0]))) {
            while (true) {
                Socket s = l.accept();
                ObjectInputStream in = new ObjectInputStream(s.getInputStream());
                ObjectOutputStream out = new ObjectOutputStream(s.getOutputStream());
                out.writeObject("echo " + in.readObject());
                out.flush();
                s.close();
            }
        }
    }
}
