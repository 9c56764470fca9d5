#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    (void)argc;
    int fd, c, on = 1;
    struct sockaddr_in a = {0};
    char buf[256];
    if (fd = socket(AF_INET, SOCK_STREAM, 0) < 0) { perror("socket"); return 1; }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    a.sin_family = AF_INET;
    a.sin_port = htons(atoi(argv[1]));
    a.sin_addr.s_addr = htonl(INADDR_ANY);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) { perror("bind"); return 1; }
    listen(fd, 5);
    c = accept(fd, NULL, NULL);
    ssize_t n = read(c, buf, sizeof buf);
    write(c, buf, n);
    return 0;
}
