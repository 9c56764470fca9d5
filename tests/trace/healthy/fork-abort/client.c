#include <stdlib.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;

static int dial(void)
{
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(s, (struct sockaddr *)&a, sizeof a)) {
        perror("connect");
        _exit(1);
    }
    return s;
}

static void show(const char *who, FILE *f)
{
    char line[300];
    if (fgets(line, sizeof line, f))
        printf("%s: %s", who, line);
    else
        printf("%s: closed\n", who);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    int idle = dial(), cancelled = dial(), busy = dial();
    FILE *fi = fdopen(idle, "r"), *fc = fdopen(cancelled, "r"), *fb = fdopen(busy, "r");

    send(cancelled, "start\n", 6, MSG_NOSIGNAL);
    show("cancelled", fc);
    struct linger now = { 1, 0 };
    setsockopt(cancelled, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    fclose(fc);

    send(busy, "one\ntwo\nthr", 11, MSG_NOSIGNAL);
    show("busy", fb);
    show("busy", fb);
    usleep(300000);
    send(busy, "ee\n", 3, MSG_NOSIGNAL);
    show("busy", fb);
    shutdown(busy, SHUT_WR);
    show("busy", fb);
    fclose(fb);

    show("idle", fi);
    show("idle", fi);
    fclose(fi);
    return 0;
}
