#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static const char *lines[] = {"hello\n", "\n", "bye\n"};
    struct sockaddr_in address = {.sin_family = AF_INET};
    char line[100], answer[100];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    (void)argc;
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("connect");
        return 1;
    }
    for (int i = 0; i < 3; i++) {
        strcpy(line, lines[i]);
        line[strcspn(line, "\n")] = '\0';
        send(fd, line, strlen(line), 0);
        ssize_t n = recv(fd, answer, sizeof answer, 0);
        if (n <= 0)
            return 1;
        printf("%.*s\n", (int)n, answer);
    }
    close(fd);
    return 0;
}
