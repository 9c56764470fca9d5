import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws IOException {
        Socket s = new Socket("localhost", Integer.parseInt(args[0]));
        DataOutputStream out = new DataOutputStream(s.getOutputStream());
        BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
        out.writeChars("TIME\n");
        out.flush();
        System.out.println(in.readLine());
        s.close();
    }
}
