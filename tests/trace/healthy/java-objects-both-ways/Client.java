import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        Socket s = new Socket("localhost", Integer.parseInt(args[0]));
        ObjectOutputStream out = new ObjectOutputStream(s.getOutputStream());
        out.writeObject("Ann");
        out.flush();
        ObjectInputStream in = new ObjectInputStream(s.getInputStream());
        System.out.println(in.readObject());
        s.close();
    }
}
