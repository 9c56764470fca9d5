import java.io.*;
import java.net.*;
public class Client {
    public static void main(String[] args) throws Exception {
        Socket s = new Socket("127.0.0.1", Integer.parseInt(args[0]));
        ObjectInputStream in = new ObjectInputStream(s.getInputStream());
        ObjectOutputStream out = new ObjectOutputStream(s.getOutputStream());
        out.writeObject("hello");
        out.flush();
        System.out.println(in.readObject());
        s.close();
    }
}
