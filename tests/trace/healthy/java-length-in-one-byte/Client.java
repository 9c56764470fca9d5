import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;

public class Client {
    public static void main(String[] args) throws IOException {
        Socket s = new Socket("localhost", Integer.parseInt(args[0]));
        DataOutputStream out = new DataOutputStream(s.getOutputStream());
        DataInputStream in = new DataInputStream(s.getInputStream());
        byte[] data = "temperature=21.5;humidity=40".getBytes(StandardCharsets.UTF_8);
        out.write(data.length);
        out.write(data);
        out.flush();
        System.out.println(in.readUTF());
        s.close();
    }
}
