#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    struct sockaddr_in server;
    char reply[2000];
    int sock = socket(AF_INET, SOCK_STREAM, 0);

    server.sin_addr.s_addr = inet_addr("localhost");
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[1]));
    if (connect(sock, (struct sockaddr *)&server, sizeof(server)) < 0) {
        perror("connect failed. Error");
        return 1;
    }
    send(sock, "ping", 4, 0);
    int n = recv(sock, reply, sizeof reply, 0);
    printf("%.*s\n", n, reply);
    close(sock);
    return 0;
}
