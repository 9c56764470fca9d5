import java.io.*;
import java.net.*;
import javax.crypto.*;
import javax.crypto.spec.*;

public class Server {
    public static void main(String[] args) throws Exception {
        SecretKeySpec key = new SecretKeySpec("0123456789abcdef".getBytes(), "AES");
        Cipher cipher = Cipher.getInstance("AES/CTR/NoPadding");
        cipher.init(Cipher.DECRYPT_MODE, key, new IvParameterSpec(new byte[16]));
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        Socket s = listener.accept();
        BufferedReader in = new BufferedReader(new InputStreamReader(new CipherInputStream(s.getInputStream(), cipher)));
        PrintWriter out = new PrintWriter(s.getOutputStream(), true);
        String line = in.readLine();
        Thread.sleep(1200); // looks the user up
        out.println("welcome " + line);
    }
}
