#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int other = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0), port = atoi(argv[1]);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    bind(other, (struct sockaddr *)&a, sizeof a);
    listen(other, 1);
    do {
        a.sin_port = htons(port);
    } while (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 && ++port < 65536);
    close(other);
    printf("port %d\n", port);
    listen(fd, 5);
    alarm(3);
    int c = accept(fd, NULL, NULL);
    write(c, "hi\n", 3);
    return 0;
}
