#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_pton(AF_INET, "192.0.2.77", &a.sin_addr);
    bind(fd, (struct sockaddr *)&a, sizeof a);
    listen(fd, 5);
    alarm(2);
    int c = accept(fd, NULL, NULL);
    write(c, "hi\n", 3);
    return 0;
}
