import java.net.*;
import java.nio.*;
import java.nio.channels.*;
public class Server {
    public static void main(String[] a) throws Exception {
        ServerSocketChannel ss = ServerSocketChannel.open();
        ss.bind(new InetSocketAddress("127.0.0.1", a.length > 0 ? Integer.parseInt(a[0]) : 0));
        System.out.println(((InetSocketAddress) ss.getLocalAddress()).getPort());
        while (true) {
            SocketChannel c = ss.accept();
            ByteBuffer b = ByteBuffer.allocate(512);
            while (c.read(b) >= 0) { c.write(b); b.clear(); }
            c.close();
        }
    }
}
