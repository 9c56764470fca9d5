import java.net.*;

public class Server {
    public static void main(String[] args) throws Exception {
        DatagramSocket socket = new DatagramSocket(Integer.parseInt(args[0]));
        while (true) {
            DatagramPacket packet = new DatagramPacket(new byte[64], 64);
            socket.receive(packet);
            String text = new String(packet.getData(), 0, packet.getLength());
            byte[] answer = (text.endsWith(";") ? "ok" : "incomplete").getBytes();
            socket.send(new DatagramPacket(answer, answer.length, packet.getSocketAddress()));
        }
    }
}
