import javax.net.ssl.*;
import java.io.*;

public class Client {
    public static void main(String[] args) throws Exception {
        SSLSocket c = (SSLSocket) SSLSocketFactory.getDefault().createSocket("localhost", Integer.parseInt(args[0]));
        System.out.println(new BufferedReader(new InputStreamReader(c.getInputStream())).readLine());
    }
}
