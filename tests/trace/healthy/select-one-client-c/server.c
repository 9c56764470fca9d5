/* One client at a time: the listener is not in the set while a client is served. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1, c = -1, idle = 0;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0 || listen(ls, 5) < 0) { perror("bind"); return 1; }
    for (;;) {
        fd_set readable;
        struct timeval limit = { 0, 500000 };
        int watched = c >= 0 ? c : ls;
        FD_ZERO(&readable);
        FD_SET(watched, &readable);
        int n = select((c > ls ? c : ls) + 1, &readable, NULL, NULL, &limit);
        if (n < 0) return 1;
        if (n == 0) { idle++; continue; }
        if (watched == ls) { c = accept(ls, NULL, NULL); continue; }
        char buf[256];
        ssize_t r = recv(c, buf, sizeof buf, 0);
        if (r <= 0) { close(c); c = -1; continue; }
        send(c, buf, r, MSG_NOSIGNAL);
    }
}
