/* Talks in buffers of 80 bytes until it is told to exit: buffer80_client ADDRESS PORT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 80

int main(int argc, char *argv[])
{
    char buffer[SIZE];
    struct sockaddr_in server = {.sin_family = AF_INET};

    if (argc != 3) {
        fprintf(stderr, "usage: buffer80_client ADDRESS PORT\n");
        return 2;
    }
    server.sin_addr.s_addr = inet_addr(argv[1]);
    server.sin_port = htons(atoi(argv[2]));
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    for (;;) {
        memset(buffer, 0, SIZE);
        printf("To server: ");
        if (fgets(buffer, SIZE, stdin) == NULL)
            break;
        /* Habit: every message is the whole buffer: the text, its newline, and zeros up to 80. */
        send(s, buffer, SIZE, 0);
        memset(buffer, 0, SIZE);
        int n = recv(s, buffer, SIZE, 0);
        if (n <= 0)
            break;
        printf("From server, %d bytes: %.*s", n, n, buffer);
        if (strncasecmp(buffer, "exit", 4) == 0)
            break;
    }
    printf("Client exit.\n");
    close(s);
    return 0;
}
