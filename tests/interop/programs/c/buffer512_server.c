/* Reads into a buffer of 512 bytes and writes all of it back in capitals. Prints its port. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 512

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET};
    socklen_t size = sizeof me;
    char buffer[SIZE];

    setlinebuf(stdout);
    int welcome = socket(AF_INET, SOCK_STREAM, 0);
    bind(welcome, (struct sockaddr *)&me, sizeof me);
    listen(welcome, 5);
    getsockname(welcome, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    for (;;) {
        int client = accept(welcome, NULL, NULL);
        memset(buffer, 0, SIZE);
        int n = read(client, buffer, SIZE);
        printf("%d bytes: %.*s\n", n, SIZE, buffer);
        for (int i = 0; buffer[i] != '\0' && i < SIZE - 1; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        /* Habit: the answer is the whole buffer, however little was read. */
        if (write(client, buffer, SIZE) < 0)
            perror("write");
        close(client);
    }
}
