import java.net.*;

public class Client {
    public static void main(String[] args) throws Exception {
        DatagramSocket socket = new DatagramSocket();
        socket.setSoTimeout(300);
        InetAddress host = InetAddress.getByName("127.0.0.1");
        String[] names = {"slow", "alpha", "beta", "gamma"};
        for (String name : names) {
            byte[] data = name.getBytes();
            socket.send(new DatagramPacket(data, data.length, host, Integer.parseInt(args[0])));
            DatagramPacket answer = new DatagramPacket(new byte[100], 100);
            try {
                socket.receive(answer);
                System.out.println(name + " -> " + new String(answer.getData(), 0, answer.getLength()));
            } catch (SocketTimeoutException e) {
                System.out.println(name + " timed out");
            }
        }
    }
}
