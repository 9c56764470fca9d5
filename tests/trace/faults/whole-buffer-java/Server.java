import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        try (ServerSocket listener = new ServerSocket(Integer.parseInt(args[0])); Socket s = listener.accept()) {
            byte[] buffer = new byte[1024];
            while (s.getInputStream().read(buffer) > 0)
                s.getOutputStream().write(buffer);
        }
    }
}
