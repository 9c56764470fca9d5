import java.net.*;
import java.nio.*;
import java.nio.channels.*;

public class Server {
    public static void main(String[] args) throws Exception {
        Selector selector = Selector.open();
        DatagramChannel channel = DatagramChannel.open();
        channel.bind(new InetSocketAddress(Integer.parseInt(args[0])));
        channel.configureBlocking(false);
        channel.register(selector, SelectionKey.OP_READ);
        ByteBuffer buffer = ByteBuffer.allocate(1500);
        while (true) {
            selector.select();
            selector.selectedKeys().clear();
            SocketAddress peer;
            while ((peer = channel.receive(buffer)) != null) {
                buffer.flip();
                channel.send(buffer, peer);
                buffer.clear();
            }
        }
    }
}
