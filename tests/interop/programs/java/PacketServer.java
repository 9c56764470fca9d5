import java.net.DatagramPacket;
import java.net.DatagramSocket;

/** Sends each datagram back in capitals, with all the rest of its array of 1,024 bytes. */
class PacketServer {
    public static void main(String[] argv) throws Exception {
        DatagramSocket socket = new DatagramSocket(0);
        System.out.println("port " + socket.getLocalPort());

        while (true) {
            byte[] receiveData = new byte[1024];
            DatagramPacket packet = new DatagramPacket(receiveData, receiveData.length);
            socket.receive(packet);
            // Habit: getLength() is not asked, so the answer has 1,024 bytes, NULs for the most part.
            String sentence = new String(packet.getData());
            byte[] sendData = sentence.toUpperCase().getBytes();
            socket.send(new DatagramPacket(sendData, sendData.length, packet.getAddress(), packet.getPort()));
        }
    }
}
