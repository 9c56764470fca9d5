import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        DatagramSocket socket = new DatagramSocket();
        socket.setSoTimeout(1500);
        socket.connect(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        socket.send(new DatagramPacket("well?".getBytes(), 5));
        try {
            socket.receive(new DatagramPacket(new byte[100], 100));
            System.out.println("answered");
        } catch (SocketTimeoutException e) {
            System.out.println("no answer");
        }
    }
}
