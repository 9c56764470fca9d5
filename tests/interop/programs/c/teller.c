/* Sends each line of its input and leaves without listening: teller tcp|udp ADDRESS PORT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    char line[1024];
    struct sockaddr_in server = {.sin_family = AF_INET};

    if (argc != 4) {
        fprintf(stderr, "usage: teller tcp|udp ADDRESS PORT\n");
        return 2;
    }
    server.sin_addr.s_addr = inet_addr(argv[2]);
    server.sin_port = htons(atoi(argv[3]));
    int s = socket(AF_INET, strcmp(argv[1], "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    while (fgets(line, sizeof line, stdin) != NULL)
        send(s, line, strlen(line), 0);
    /* Habit: closing at once. Had the server answered, its answer would meet nobody. */
    close(s);
    return 0;
}
