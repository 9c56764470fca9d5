#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int read_all(int s, char *to, size_t n) {
    for (size_t got = 0; got < n;) {
        ssize_t now = recv(s, to + got, n - got, 0);
        if (now <= 0) return 0;
        got += now;
    }
    return 1;
}

int main(int argc, char **argv) {
    int one = 1, w = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(w, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(w, (void *)&a, sizeof a);
    listen(w, 5);
    int c = accept(w, 0, 0);
    uint16_t n;
    read_all(c, (char *)&n, 2);
    char *text = malloc(n);
    if (read_all(c, text, n)) send(c, text, n, 0);
    close(c);
}
