/* Every answer is a whole buffer of 1,024 bytes. Prints its port. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define SIZE 1024

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET}, client;
    socklen_t size = sizeof me;
    char buffer[SIZE];

    setlinebuf(stdout);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    bind(s, (struct sockaddr *)&me, sizeof me);
    getsockname(s, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    for (;;) {
        size = sizeof client;
        memset(buffer, 0, SIZE);
        int n = recvfrom(s, buffer, SIZE, 0, (struct sockaddr *)&client, &size);
        printf("%d bytes from %s: %.*s\n", n, inet_ntoa(client.sin_addr), SIZE, buffer);
        for (int i = 0; i < SIZE; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        /* Habit: the answer has 1,024 bytes, the zeros behind the text included. */
        sendto(s, buffer, SIZE, 0, (struct sockaddr *)&client, size);
    }
}
