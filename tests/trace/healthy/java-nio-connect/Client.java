import java.net.*;
import java.nio.*;
import java.nio.channels.*;

public class Client {
    public static void main(String[] args) throws Exception {
        Selector selector = Selector.open();
        SocketChannel channel = SocketChannel.open();
        channel.configureBlocking(false);
        channel.connect(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        channel.register(selector, SelectionKey.OP_CONNECT);
        ByteBuffer buffer = ByteBuffer.allocate(100);
        while (channel.isOpen()) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isConnectable() && channel.finishConnect()) {
                    channel.write(ByteBuffer.wrap("hello".getBytes()));
                    key.interestOps(SelectionKey.OP_READ);
                } else if (key.isReadable() && channel.read(buffer) != 0) {
                    channel.close();
                }
            }
            selector.selectedKeys().clear();
        }
    }
}
