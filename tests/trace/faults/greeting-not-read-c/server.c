#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 8)) { perror("bind"); return 1; }
    for (;;) {
        int c = accept(l, NULL, NULL);
        const char *hi = "220 logger ready\r\n";
        send(c, hi, strlen(hi), 0);
        char buf[64]; ssize_t n; long total = 0;
        while ((n = recv(c, buf, sizeof buf, 0)) > 0) { total += n; usleep(20000); /* store it */ }
        if (n < 0) perror("recv");
        printf("stored %ld bytes\n", total); fflush(stdout);
        close(c);
    }
}
