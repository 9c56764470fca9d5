#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>
#include <sys/time.h>
#include <sys/socket.h>
#include <netinet/in.h>
static void tick(int s) { (void)s; write(2, ".", 1); }
int main(int argc, char **argv) {
    struct sigaction sa; memset(&sa, 0, sizeof sa); sa.sa_handler = tick; sigaction(SIGALRM, &sa, NULL);
    struct itimerval t = {{0, 300000}, {0, 300000}}; setitimer(ITIMER_REAL, &t, NULL);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(s, (void *)&a, sizeof a)) { perror("connect"); return 1; }
    send(s, "compute 42", 10, 0);
    char buf[200]; ssize_t n;
    do n = recv(s, buf, sizeof buf, 0); while (n < 0 && errno == EINTR);
    if (n <= 0) return 2;
    printf("%.*s\n", (int)n, buf);
    return 0;
}
