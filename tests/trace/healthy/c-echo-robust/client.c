#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return 1;
    const char *words[] = {"alpha\n", "beta\n", "gamma\n"};
    char line[100];
    for (int i = 0; i < 3; i++) {
        size_t got = 0, want = strlen(words[i]);
        send(fd, words[i], want, 0);
        while (got < want) {
            ssize_t n = recv(fd, line + got, want - got, 0);
            if (n <= 0) return 1;
            got += n;
        }
        fwrite(line, 1, got, stdout);
    }
    close(fd);
    return 0;
}
