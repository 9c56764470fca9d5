import java.net.*;
import java.nio.*;
import java.nio.channels.*;

public class Client {
    public static void main(String[] args) throws Exception {
        SocketChannel c = SocketChannel.open();
        c.configureBlocking(false);
        c.connect(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        Thread.sleep(1500);
        c.write(ByteBuffer.wrap("hello\n".getBytes()));
    }
}
