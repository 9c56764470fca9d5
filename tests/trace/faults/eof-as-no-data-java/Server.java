import java.io.*;
import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        while (true) {
            Socket s = listener.accept();
            InputStream in = s.getInputStream();
            byte[] buffer = new byte[1000];
            StringBuilder text = new StringBuilder();
            while (text.indexOf("\n") < 0) {
                int n = in.read(buffer);
                if (n <= 0) {
                    Thread.sleep(500); // nothing yet
                    continue;
                }
                text.append(new String(buffer, 0, n));
            }
            s.getOutputStream().write(text.toString().getBytes());
            s.close();
        }
    }
}
