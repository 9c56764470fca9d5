/* Every datagram is a whole buffer of 1,024 bytes: udp1024_client ADDRESS PORT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 1024

int main(int argc, char *argv[])
{
    char buffer[SIZE];
    struct sockaddr_in server = {.sin_family = AF_INET};

    if (argc != 3) {
        fprintf(stderr, "usage: udp1024_client ADDRESS PORT\n");
        return 2;
    }
    server.sin_addr.s_addr = inet_addr(argv[1]);
    server.sin_port = htons(atoi(argv[2]));
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    memset(buffer, 0, SIZE);
    if (fgets(buffer, SIZE, stdin) == NULL)
        return 1;
    buffer[strcspn(buffer, "\n")] = '\0';
    /* Habit: the datagram has 1,024 bytes, the zeros behind the text included. */
    sendto(s, buffer, SIZE, 0, (struct sockaddr *)&server, sizeof server);
    memset(buffer, 0, SIZE);
    int n = recvfrom(s, buffer, SIZE, 0, NULL, NULL);
    printf("%d bytes: %.*s\n", n, n, buffer);
    close(s);
    return 0;
}
