import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        Socket s = new Socket("localhost", Integer.parseInt(args[0]));
        ObjectOutputStream out = new ObjectOutputStream(s.getOutputStream());
        out.writeObject("hello from Java");
        out.flush();
        BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
        System.out.println(in.readLine());
    }
}
