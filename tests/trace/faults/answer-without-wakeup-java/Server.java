import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.util.concurrent.*;

public class Server {
    public static void main(String[] args) throws Exception {
        BlockingQueue<SelectionKey> jobs = new LinkedBlockingQueue<>();
        ConcurrentLinkedQueue<SelectionKey> finished = new ConcurrentLinkedQueue<>();
        Thread worker = new Thread(() -> {
            try {
                while (true) {
                    SelectionKey key = jobs.take();
                    Thread.sleep(100); // a query
                    key.attach(ByteBuffer.wrap("3 rows".getBytes()));
                    finished.add(key);
                }
            } catch (InterruptedException e) { }
        });
        worker.setDaemon(true);
        worker.start();
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (SelectionKey key; (key = finished.poll()) != null; )
                ((SocketChannel) key.channel()).write((ByteBuffer) key.attachment());
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel client = listener.accept();
                    client.configureBlocking(false);
                    client.register(selector, SelectionKey.OP_READ);
                } else if (((SocketChannel) key.channel()).read(ByteBuffer.allocate(500)) < 0) {
                    key.channel().close();
                } else {
                    jobs.add(key);
                }
            }
            selector.selectedKeys().clear();
        }
    }
}
