import java.io.BufferedReader;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.net.Socket;

/** A thread for each client, which capitalises line after line until the client has finished. */
class ThreadedServer extends Thread {
    private final Socket client;

    ThreadedServer(Socket client) {
        this.client = client;
    }

    @Override
    public void run() {
        try {
            InputStreamReader in = new InputStreamReader(client.getInputStream());
            BufferedReader fromClient = new BufferedReader(in);
            DataOutputStream toClient = new DataOutputStream(client.getOutputStream());
            String line;
            while ((line = fromClient.readLine()) != null) {
                String name = client.getInetAddress().getHostAddress() + "#" + client.getPort();
                System.out.println(name + ": " + line);
                toClient.writeBytes(line.toUpperCase() + '\n');
            }
            client.close();
        } catch (IOException e) {
            System.out.println("lost a client: " + e.getMessage());
        }
    }

    public static void main(String[] argv) throws Exception {
        ServerSocket welcome = new ServerSocket(0);
        System.out.println("port " + welcome.getLocalPort());

        while (true) {
            new ThreadedServer(welcome.accept()).start();
        }
    }
}
