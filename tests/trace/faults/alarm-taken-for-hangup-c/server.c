#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int ticks;
static void tick(int signal) { ticks++; }

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    struct sigaction action = {.sa_handler = tick};
    struct itimerval second = {{0, 700000}, {0, 700000}};
    char buf[200];
    int s = socket(AF_INET, SOCK_STREAM, 0), c, n;
    bind(s, (struct sockaddr *)&a, sizeof a);
    listen(s, 5);
    c = accept(s, NULL, NULL);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &second, NULL);
    while ((n = read(c, buf, sizeof buf)) > 0)
        write(c, buf, n);
    close(c);
    printf("the client left after %d ticks\n", ticks);
}
