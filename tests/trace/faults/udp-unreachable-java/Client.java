import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        DatagramSocket socket = new DatagramSocket();
        socket.connect(InetAddress.getByName("127.0.0.1"), Integer.parseInt(args[0]));
        byte[] data = "hello".getBytes();
        socket.send(new DatagramPacket(data, data.length));
        DatagramPacket answer = new DatagramPacket(new byte[100], 100);
        try {
            socket.receive(answer);
        } catch (PortUnreachableException e) {
            System.out.println("failed: " + e);
        }
    }
}
