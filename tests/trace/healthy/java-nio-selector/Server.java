import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.util.*;

public class Server {
    public static void main(String[] args) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            Iterator<SelectionKey> keys = selector.selectedKeys().iterator();
            while (keys.hasNext()) {
                SelectionKey key = keys.next();
                keys.remove();
                if (key.isAcceptable()) {
                    SocketChannel conn = listener.accept();
                    conn.configureBlocking(false);
                    conn.register(selector, SelectionKey.OP_READ, ByteBuffer.allocate(4096));
                } else if (key.isReadable()) {
                    SocketChannel conn = (SocketChannel) key.channel();
                    ByteBuffer buffer = (ByteBuffer) key.attachment();
                    buffer.clear();
                    if (conn.read(buffer) < 0) {
                        conn.close();
                        continue;
                    }
                    buffer.flip();
                    while (buffer.hasRemaining()) conn.write(buffer);
                }
            }
        }
    }
}
