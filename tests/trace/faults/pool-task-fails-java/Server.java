import java.io.*;
import java.net.*;
import java.util.concurrent.*;

public class Server {
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]));
        while (true) {
            Socket client = listener.accept();
            pool.submit(() -> {
                BufferedReader in = new BufferedReader(new InputStreamReader(client.getInputStream()));
                PrintWriter out = new PrintWriter(client.getOutputStream(), true);
                String line;
                while ((line = in.readLine()) != null)
                    out.println(1000 / Integer.parseInt(line));
                client.close();
                return null;
            });
        }
    }
}
