import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        Socket s = listener.accept();
        ObjectOutputStream out = new ObjectOutputStream(s.getOutputStream());
        out.flush();
        ObjectInputStream in = new ObjectInputStream(new BufferedInputStream(s.getInputStream()));
        String name = (String) in.readObject();
        Thread.sleep(1200); // looks it up
        out.writeObject("hello " + name);
        out.flush();
        in.read();
        s.close();
    }
}
