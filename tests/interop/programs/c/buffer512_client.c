/* Writes a whole buffer of 512 bytes, whatever stands in it, and reads one: buffer512_client ADDRESS PORT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 512

int main(int argc, char *argv[])
{
    char buffer[SIZE];
    struct sockaddr_in server = {.sin_family = AF_INET};

    if (argc != 3) {
        fprintf(stderr, "usage: buffer512_client ADDRESS PORT\n");
        return 2;
    }
    server.sin_addr.s_addr = inet_addr(argv[1]);
    server.sin_port = htons(atoi(argv[2]));
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    memset(buffer, 0, SIZE);
    if (fgets(buffer, SIZE, stdin) == NULL)
        return 1;
    buffer[strcspn(buffer, "\n")] = '\0';
    /* Habit: all 512 bytes go out, the zeros behind the text too. */
    if (write(s, buffer, SIZE) < 0)
        perror("write");
    memset(buffer, 0, SIZE);
    int n = read(s, buffer, SIZE);
    printf("%d bytes: %.*s\n", n, n, buffer);
    close(s);
    return 0;
}
