import java.io.InputStream;
import java.net.ServerSocket;
import java.net.Socket;

/** Capitalises what one read gives, and closes. */
class OneReadServer {
    public static void main(String[] argv) throws Exception {
        ServerSocket welcome = new ServerSocket(0);
        System.out.println("port " + welcome.getLocalPort());

        while (true) {
            Socket connection = welcome.accept();
            InputStream fromClient = connection.getInputStream();
            byte[] buffer = new byte[1024];
            int size = fromClient.read(buffer);
            if (size > 0) {
                // Habit: bytes become text, and text bytes, in whatever encoding the machine is set to.
                String sentence = new String(buffer, 0, size);
                connection.getOutputStream().write(sentence.toUpperCase().getBytes());
            }
            connection.close();
        }
    }
}
