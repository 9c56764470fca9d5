/* One read of 2,560 bytes from each client, sent back as it came: one_read tcp|udp. Prints its port. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    struct sockaddr_in me = {.sin_family = AF_INET}, client;
    socklen_t size = sizeof me;
    char buffer[5 * 512];
    int udp = argc > 1 && strcmp(argv[1], "udp") == 0;

    setlinebuf(stdout);
    int s = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    bind(s, (struct sockaddr *)&me, sizeof me);
    if (!udp)
        listen(s, 5);
    getsockname(s, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    for (;;) {
        size = sizeof client;
        int talk = udp ? s : accept(s, NULL, NULL);
        int n = recvfrom(talk, buffer, sizeof buffer, 0, (struct sockaddr *)&client, &size);
        printf("one read, %d bytes\n", n);
        if (n < 0)
            continue;
        if (udp) {
            sendto(talk, buffer, n, 0, (struct sockaddr *)&client, size);
        } else {
            send(talk, buffer, n, 0);
            close(talk);
        }
    }
}
