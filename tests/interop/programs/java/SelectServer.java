import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

/** Many clients at once, by a selector: capitalises what comes from each. */
class SelectServer {
    public static void main(String[] argv) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel welcome = ServerSocketChannel.open();
        welcome.bind(new InetSocketAddress(0));
        welcome.configureBlocking(false);
        welcome.register(selector, SelectionKey.OP_ACCEPT);
        System.out.println("port " + welcome.socket().getLocalPort());
        ByteBuffer buffer = ByteBuffer.allocate(1024);

        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.channel() == welcome) {
                    SocketChannel client = welcome.accept();
                    client.configureBlocking(false);
                    client.register(selector, SelectionKey.OP_READ);
                    continue;
                }
                SocketChannel client = (SocketChannel) key.channel();
                buffer.clear();
                if (client.read(buffer) < 0) {
                    client.close();
                    continue;
                }
                String text = new String(buffer.array(), 0, buffer.position(), StandardCharsets.ISO_8859_1);
                // Habit: a client that doesn't read makes write take less than all.
                client.write(ByteBuffer.wrap(text.toUpperCase().getBytes(StandardCharsets.ISO_8859_1)));
            }
            selector.selectedKeys().clear();
        }
    }
}
