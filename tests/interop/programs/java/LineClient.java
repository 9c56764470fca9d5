import java.io.BufferedReader;
import java.io.DataOutputStream;
import java.io.InputStreamReader;
import java.net.Socket;

/** Sends one line to a TCP server and shows the line that comes back: LineClient ADDRESS PORT. */
class LineClient {
    public static void main(String[] argv) throws Exception {
        BufferedReader fromUser = new BufferedReader(new InputStreamReader(System.in));
        Socket socket = new Socket(argv[0], Integer.parseInt(argv[1]));
        DataOutputStream toServer = new DataOutputStream(socket.getOutputStream());
        BufferedReader fromServer = new BufferedReader(new InputStreamReader(socket.getInputStream()));

        String sentence = fromUser.readLine();
        // Habit: writeBytes sends the low byte of each char only.
        toServer.writeBytes(sentence + '\n');
        System.out.println("FROM SERVER: " + fromServer.readLine());
        socket.close();
    }
}
