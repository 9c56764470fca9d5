#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0 || listen(ls, 5) < 0) { perror("bind"); return 1; }

    int first = accept(ls, NULL, NULL), second = accept(ls, NULL, NULL);
    int highest = first > second ? first : second;
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(first, &readable);
    FD_SET(second, &readable);
    while (select(highest + 1, &readable, NULL, NULL, NULL) > 0) {
        for (int fd = 0; fd <= highest; fd++) {
            char buf[256];
            if (!FD_ISSET(fd, &readable)) continue;
            ssize_t n = recv(fd, buf, sizeof buf, 0);
            if (n <= 0) return 0;
            send(fd, buf, n, MSG_NOSIGNAL);
        }
    }
    return 0;
}
