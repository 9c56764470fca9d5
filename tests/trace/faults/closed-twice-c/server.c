#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(int c) {
    char buffer[100];
    ssize_t n = recv(c, buffer, sizeof buffer, 0);
    if (n > 0) send(c, buffer, n, 0);
    close(c);
}

int main(int argc, char **argv) {
    int one = 1, w = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(w, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(w, (void *)&a, sizeof a);
    listen(w, 5);
    for (int i = 0; i < 2; i++) {
        int c = accept(w, 0, 0);
        serve(c);
        close(c);
    }
}
