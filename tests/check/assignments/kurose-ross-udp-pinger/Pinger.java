import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.SocketTimeoutException;

public class Pinger {
    public static void main(String[] args) throws Exception {
        InetAddress server = InetAddress.getByName(args[0]);
        int port = Integer.parseInt(args[1]);
        try (DatagramSocket socket = new DatagramSocket()) {
            socket.setSoTimeout(1000);
            for (int number = 1; number <= 10; number++) {
                long start = System.nanoTime();
                byte[] ping = ("Ping " + number + " " + System.currentTimeMillis()).getBytes();
                socket.send(new DatagramPacket(ping, ping.length, server, port));
                DatagramPacket reply = new DatagramPacket(new byte[1024], 1024);
                try {
                    socket.receive(reply);
                    String text = new String(reply.getData(), 0, reply.getLength());
                    double rtt = (System.nanoTime() - start) / 1e6;
                    System.out.println("Ping " + number + ": " + text + ", " + rtt + " ms");
                } catch (SocketTimeoutException timeout) {
                    System.out.println("Request timed out");
                }
            }
        }
    }
}
