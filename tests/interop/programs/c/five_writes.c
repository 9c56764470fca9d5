/* Five writes of 512 bytes, then one read of 2,560: five_writes tcp|udp ADDRESS PORT
 *
 * A stream keeps no boundary between the writes: the one read gives any part of the answer, from 512
 * bytes to all 2,560. Datagrams keep it: it gives exactly the answer to the first write. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    char buffer[512], answer[5 * 512];
    struct sockaddr_in server = {.sin_family = AF_INET};

    if (argc != 4) {
        fprintf(stderr, "usage: five_writes tcp|udp ADDRESS PORT\n");
        return 2;
    }
    server.sin_addr.s_addr = inet_addr(argv[2]);
    server.sin_port = htons(atoi(argv[3]));
    int s = socket(AF_INET, strcmp(argv[1], "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    for (int i = 0; i < 5; i++) {
        memset(buffer, 'a' + i, sizeof buffer);
        if (write(s, buffer, sizeof buffer) < 0)
            perror("write");
    }
    int n = read(s, answer, sizeof answer);
    printf("%d bytes: %.*s\n", n, n, answer);
    close(s);
    return 0;
}
