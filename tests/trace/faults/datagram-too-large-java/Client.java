import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        DatagramSocket socket = new DatagramSocket();
        socket.setSoTimeout(1000);
        byte[] data = new byte[70000];
        try {
            socket.send(new DatagramPacket(data, data.length, InetAddress.getByName("127.0.0.1"), Integer.parseInt(args[0])));
            DatagramPacket answer = new DatagramPacket(new byte[100], 100);
            socket.receive(answer);
        } catch (java.io.IOException e) {
            System.out.println("failed: " + e);
        }
    }
}
