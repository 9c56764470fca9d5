import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        DatagramSocket socket = new DatagramSocket(Integer.parseInt(args[0]));
        byte[] buffer = new byte[1500];
        DatagramPacket packet = new DatagramPacket(buffer, buffer.length);
        while (true) {
            socket.receive(packet);
            DatagramSocket answer = new DatagramSocket();
            answer.send(new DatagramPacket("yes".getBytes(), 3, packet.getAddress(), packet.getPort()));
            answer.close();
        }
    }
}
