import java.net.URI;
import java.net.http.*;

public class Client {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        URI uri = URI.create("http://127.0.0.1:" + args[0] + "/");
        for (int i = 0; i < 3; i++) {
            HttpRequest request = HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString("x".repeat(i))).build();
            System.out.print(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
            Thread.sleep(i == 1 ? 1800 : 100);
        }
    }
}
