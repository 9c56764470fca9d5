import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        try (ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]))) {
            while (true) {
                Socket client = listener.accept();
                client.setSoLinger(true, 0); // no TIME_WAIT
                client.getInputStream().read(new byte[256]);
                client.getOutputStream().write("goodbye\n".getBytes());
                client.close();
            }
        }
    }
}
