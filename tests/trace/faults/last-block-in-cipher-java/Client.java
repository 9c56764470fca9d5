import java.io.*;
import java.net.*;
import javax.crypto.*;
import javax.crypto.spec.*;

public class Client {
    public static void main(String[] args) throws Exception {
        SecretKeySpec key = new SecretKeySpec("0123456789abcdef".getBytes(), "AES");
        Cipher cipher = Cipher.getInstance("AES/CBC/PKCS5Padding");
        cipher.init(Cipher.ENCRYPT_MODE, key, new IvParameterSpec(new byte[16]));
        Socket s = new Socket("localhost", Integer.parseInt(args[0]));
        PrintWriter out = new PrintWriter(new CipherOutputStream(s.getOutputStream(), cipher), true);
        out.println("user: ann, password: secret");
        out.flush();
        System.out.println(new BufferedReader(new InputStreamReader(s.getInputStream())).readLine());
    }
}
