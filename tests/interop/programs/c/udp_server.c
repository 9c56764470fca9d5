/* Sends each datagram back in capitals. Prints its port. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET}, client;
    socklen_t size = sizeof me;
    char buffer[1024];

    setlinebuf(stdout);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    bind(s, (struct sockaddr *)&me, sizeof me);
    getsockname(s, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    for (;;) {
        size = sizeof client;
        /* Habit: what is longer than the buffer is cut off without a word. */
        int n = recvfrom(s, buffer, sizeof buffer, 0, (struct sockaddr *)&client, &size);
        for (int i = 0; i < n; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        sendto(s, buffer, n > 0 ? n : 0, 0, (struct sockaddr *)&client, size);
    }
}
