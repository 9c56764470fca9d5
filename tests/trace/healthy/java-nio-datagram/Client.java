import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        try (DatagramSocket socket = new DatagramSocket()) {
            socket.setSoTimeout(2000);
            socket.connect(InetAddress.getByName("127.0.0.1"), Integer.parseInt(args[0]));
            for (int i = 0; i < 3; i++) {
                byte[] data = ("message " + i).getBytes();
                socket.send(new DatagramPacket(data, data.length));
                DatagramPacket answer = new DatagramPacket(new byte[1500], 1500);
                socket.receive(answer);
                System.out.println(new String(answer.getData(), 0, answer.getLength()));
            }
        }
    }
}
