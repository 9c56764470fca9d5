#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>

static int dial(int port)
{
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(s, (struct sockaddr *)&a, sizeof a) < 0) { perror("connect"); exit(1); }
    return s;
}

static void echo(int s, const char *who)
{
    char buf[64];
    write(s, who, strlen(who));
    ssize_t n = read(s, buf, sizeof buf - 1);
    if (n < 0) n = 0;
    buf[n] = 0;
    printf("%s: got \"%s\"\n", who, buf);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int first = dial(atoi(argv[1]));
    echo(first, "first");
    int second = dial(atoi(argv[1]));
    echo(second, "second");
    close(first);
    usleep(200000);
    int third = dial(atoi(argv[1]));
    echo(third, "third");
    echo(second, "second again");
    return 0;
}
