import java.io.*;
import java.net.*;

public class Client {
    static class Address { String street = "Main Street"; }
    static class Person implements Serializable { String name = "Ann"; Address address = new Address(); }

    public static void main(String[] args) throws Exception {
        Socket s = new Socket("localhost", Integer.parseInt(args[0]));
        ObjectOutputStream out = new ObjectOutputStream(s.getOutputStream());
        try {
            out.writeObject(new Person());
            out.flush();
        } catch (IOException e) {
            System.out.println("could not send");
        }
        System.out.println(new BufferedReader(new InputStreamReader(s.getInputStream())).readLine());
    }
}
