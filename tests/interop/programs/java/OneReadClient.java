import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.Socket;

/** Sends a line without its end, and takes one read for the whole answer: OneReadClient ADDRESS PORT. */
class OneReadClient {
    public static void main(String[] argv) throws Exception {
        BufferedReader fromUser = new BufferedReader(new InputStreamReader(System.in));
        Socket socket = new Socket(argv[0], Integer.parseInt(argv[1]));
        InputStream fromServer = socket.getInputStream();

        String sentence = fromUser.readLine();
        socket.getOutputStream().write(sentence.getBytes());
        byte[] answer = new byte[1024];
        int size = fromServer.read(answer);
        System.out.println(size + " bytes: " + new String(answer, 0, size));
        socket.close();
    }
}
