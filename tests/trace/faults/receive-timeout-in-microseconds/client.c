#include <stdlib.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>

static void set_timeout(int s, int ms)
{
    struct timeval tv;
    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000;
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

int main(int argc, char **argv)
{
    for (int try = 1; try <= 3; try++) {
        int s = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        set_timeout(s, 800);
        if (connect(s, (struct sockaddr *)&a, sizeof a) < 0) { perror("connect"); return 1; }
        write(s, "GET TEMP\n", 9);
        char buf[64];
        ssize_t n = read(s, buf, sizeof buf - 1);
        if (n > 0) { buf[n] = 0; printf("%s", buf); return 0; }
        printf("try %d: no answer (%s)\n", try, strerror(errno));
        close(s);
    }
    return 1;
}
