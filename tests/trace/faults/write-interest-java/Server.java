import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.*;

public class Server {
    public static void main(String[] args) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        SocketChannel channel = listener.accept();
        channel.configureBlocking(false);
        channel.register(selector, SelectionKey.OP_READ | SelectionKey.OP_WRITE);
        ByteBuffer buffer = ByteBuffer.allocate(1000);
        while (channel.isOpen()) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isReadable() && channel.read(buffer) < 0) { channel.close(); break; }
                buffer.flip();
                if (key.isWritable() && buffer.hasRemaining()) channel.write(buffer);
                buffer.compact();
            }
            selector.selectedKeys().clear();
        }
    }
}
