#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (24 << 20)

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    char *data = calloc(1, SIZE);
    size_t n = 0;
    connect(s, (struct sockaddr *)&a, sizeof a);
    while (n < SIZE) n += write(s, data + n, SIZE - n);
    shutdown(s, SHUT_WR);
    for (n = 0; n < SIZE;) n += read(s, data + n, SIZE - n);
    printf("%zu echoed\n", n);
}
