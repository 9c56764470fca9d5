import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        Socket s = listener.accept();
        for (int i = 0; i < 2; i++) {
            ObjectInputStream in = new ObjectInputStream(s.getInputStream());
            System.out.println("got " + in.readObject());
        }
    }
}
