import javax.net.ssl.*;
import java.io.*;

public class Server {
    public static void main(String[] args) throws Exception {
        SSLServerSocket s = (SSLServerSocket) SSLServerSocketFactory.getDefault().createServerSocket(Integer.parseInt(args[0]));
        while (true) {
            SSLSocket c = (SSLSocket) s.accept();
            try {
                c.getOutputStream().write("hello\n".getBytes());
            } catch (IOException e) {
                System.out.println("client failed");
            }
            c.close();
        }
    }
}
