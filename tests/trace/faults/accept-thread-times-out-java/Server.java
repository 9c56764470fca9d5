import java.io.*;
import java.net.*;
public class Server {
    public static void main(String[] args) throws Exception {
        ServerSocket ss = new ServerSocket(Integer.parseInt(args[0]), 10, InetAddress.getByName("127.0.0.1"));
        ss.setSoTimeout(500);
        Thread t = new Thread(() -> {
            try { while (true) { try (Socket s = ss.accept()) { s.getOutputStream().write(("n " + s.getInputStream().read() + "\n").getBytes()); } } }
            catch (IOException e) { System.err.println("accept: " + e.getMessage()); }
        });
        t.start();
        while (true) { Thread.sleep(1000); /* housekeeping */ }
    }
}
