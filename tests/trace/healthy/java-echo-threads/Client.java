import java.io.*;
import java.net.*;

public class Client {
    public static void main(String[] args) throws IOException {
        try (Socket s = new Socket("localhost", Integer.parseInt(args[0]))) {
            BufferedReader in = new BufferedReader(new InputStreamReader(s.getInputStream()));
            PrintWriter out = new PrintWriter(s.getOutputStream(), true);
            for (int i = 0; i < 5; i++) {
                out.println("line " + i);
                System.out.println(in.readLine());
            }
        }
    }
}
