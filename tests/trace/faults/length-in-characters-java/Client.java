import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;

public class Client {
    static void entry(DataOutputStream out, String text) throws IOException {
        out.writeInt(text.length());
        out.write(text.getBytes(StandardCharsets.UTF_8));
    }

    public static void main(String[] args) throws Exception {
        String[] book = { "Lovely place", "Sch\u00f6ne Gr\u00fc\u00dfe an alle", "We shall come again", "Bye" };
        try (Socket s = new Socket("127.0.0.1", Integer.parseInt(args[0]))) {
            DataOutputStream out = new DataOutputStream(new BufferedOutputStream(s.getOutputStream()));
            out.writeInt(book.length);
            for (String text : book)
                entry(out, text);
            out.flush();
            int stored = new DataInputStream(s.getInputStream()).readInt();
            System.out.println(stored + " entries stored");
        }
    }
}
