import java.io.*;
import java.net.*;

public class Client {
    static void send(Socket s, String text) throws IOException {
        ObjectOutputStream out = new ObjectOutputStream(s.getOutputStream());
        out.writeObject(text);
        out.flush();
    }

    public static void main(String[] args) throws Exception {
        Socket s = new Socket("localhost", Integer.parseInt(args[0]));
        send(s, "first");
        Thread.sleep(300);
        send(s, "second");
        Thread.sleep(300);
        s.close();
    }
}
