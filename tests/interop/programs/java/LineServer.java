import java.io.BufferedReader;
import java.io.DataOutputStream;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.net.Socket;

/** Capitalises one line for one client after another, and leaves the closing to the collector. */
class LineServer {
    public static void main(String[] argv) throws Exception {
        ServerSocket welcome = new ServerSocket(0);
        System.out.println("port " + welcome.getLocalPort());

        while (true) {
            Socket connection = welcome.accept();
            InputStreamReader in = new InputStreamReader(connection.getInputStream());
            BufferedReader fromClient = new BufferedReader(in);
            DataOutputStream toClient = new DataOutputStream(connection.getOutputStream());
            String sentence = fromClient.readLine();
            // Habits: nobody asks whether readLine gave null, and the connection is never closed.
            if (sentence != null) {
                toClient.writeBytes(sentence.toUpperCase() + '\n');
            }
        }
    }
}
